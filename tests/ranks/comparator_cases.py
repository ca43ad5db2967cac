"""The comparators against references of their own, and the options of ``--bn``.

All ranks know the whole batch; each gives its part to the link.
"""

import copy
import warnings

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest
from chainer.utils import type_check
from chainermn.links import MultiNodeBatchNormalization
from exactness_cases import (
    TOLERANCE,
    Counting,
    batch,
    parameters,
    part_of,
    run,
    unequal,
)
from reference import batch_normalization, error
from training_cases import CPU, images_of

from chainer_crossbn import CrossBatchNormalization
from chainer_crossbn.links import (
    LayerNormalization,
    PaperBatchNormalization,
    WeightNormalization,
)
from chainer_crossbn.models import VGG16, normalizations
from chainer_crossbn.training.iterators import ShareIterator
from chainer_crossbn.training.running_statistics import averaged
from chainer_crossbn.training.updaters import GlobalUpdater, as_input, prime

DTYPES = ("float32", "float64")


@pytest.fixture(autouse=True)
def dtype(request):
    """The dtype of new links, float64 unless a test is parametrized with another."""
    name = getattr(request, "param", "float64")
    with chainer.using_config("dtype", np.dtype(name)):
        yield name


both_dtypes = pytest.mark.parametrize("dtype", DTYPES, indirect=True)


def equal_on_all_ranks(comm, *arrays):
    return len(set(comm.allreduce_obj([b"".join(a.tobytes() for a in arrays)]))) == 1


# The paper's batch normalization


def paper(comm, channels=5, **options):
    """Return a link and its gamma and beta."""
    link = PaperBatchNormalization(channels, comm, **options)
    gamma, beta = parameters((channels,), link.gamma.dtype)
    link.gamma.array[...], link.beta.array[...] = gamma, beta
    return link, gamma, beta


@both_dtypes
@pytest.mark.parametrize("n_allreduces", [1, 2])
@pytest.mark.parametrize("tail", [(5,), (5, 3, 4)])
def test_paper_on_equal_local_batches(comm, tail, n_allreduces, dtype):
    counts = [4] * comm.size
    mine = part_of(comm, counts)
    x, gy = batch((sum(counts), *tail), dtype)
    link, gamma, beta = paper(comm, n_allreduces=n_allreduces)
    y, gx = run(link, x[mine], gy[mine])
    whole = batch_normalization(x, gy, gamma, beta)
    limit = TOLERANCE[dtype]
    assert y.dtype == gx.dtype == x.dtype
    assert error(y, whole["y"][mine]) < limit
    assert error(gx, whole["gx"][mine]) < limit
    for parameter, name in ((link.gamma, "ggamma"), (link.beta, "gbeta")):
        assert error(comm.allreduce(parameter.grad), whole[name]) < limit * comm.size
    n = whole["n"]
    assert error(link.avg_mean, 0.1 * whole["mean"]) < limit
    assert error(link.avg_var, 0.9 + 0.1 * whole["var"] * n / (n - 1)) < limit


def test_paper_with_a_local_backward_pass(comm):
    """Statistics are global, the means in the gradient those of this rank."""
    counts = [4] * comm.size
    mine = part_of(comm, counts)
    x, gy = batch((sum(counts), 5, 3, 2), "float64")
    link, gamma, beta = paper(comm, backward="local")
    y, gx = run(link, x[mine], gy[mine])
    whole = batch_normalization(x, gy, gamma, beta)
    mean, std, scale = (
        v[:, None, None] for v in (whole["mean"], np.sqrt(whole["var"] + 2e-5), gamma)
    )
    x_hat, g = (x[mine] - mean) / std, gy[mine]
    mean_g, mean_g_x_hat = (
        v.mean(axis=(0, 2, 3), keepdims=True) for v in (g, g * x_hat)
    )
    assert error(y, whole["y"][mine]) < 1e-11
    assert error(gx, scale / std * (g - mean_g - x_hat * mean_g_x_hat)) < 1e-11
    if comm.size > 1:
        assert error(gx, whole["gx"][mine]) > 0.01


def test_paper_on_unequal_local_batches(comm):
    """The statistics are means of the ranks' means, whatever their counts."""
    counts = unequal(comm)
    x, _ = batch((sum(counts), 5, 3), "float64")
    link, gamma, beta = paper(comm)
    y = link(x[part_of(comm, counts)]).array
    parts = np.split(x, np.cumsum(counts)[:-1])
    mean = np.mean([part.mean(axis=(0, 2)) for part in parts], axis=0)
    square = np.mean([(part**2).mean(axis=(0, 2)) for part in parts], axis=0)
    x_hat = (x - mean[:, None]) / np.sqrt(square - mean**2 + 2e-5)[:, None]
    expected = gamma[:, None] * x_hat + beta[:, None]
    assert error(y, expected[part_of(comm, counts)]) < 1e-11
    assert error(link.avg_mean, 0.1 * mean) < 1e-11


def test_paper_has_equal_running_statistics_on_all_ranks(comm):
    counts = unequal(comm)
    link, _, _ = paper(comm)
    link(batch((sum(counts), 5, 3), "float64")[0][part_of(comm, counts)])
    assert equal_on_all_ranks(comm, link.avg_mean, link.avg_var)


def test_paper_in_test_mode_is_that_of_chainer(comm):
    x, _ = batch((4, 5, 3), "float64")
    link, stock = paper(comm)[0], L.BatchNormalization(5)
    link(x)
    stock.copyparams(link)
    if comm.rank == 0:  # no other rank takes part, so nothing may be communicated
        with chainer.using_config("train", False):
            assert (link(x).array == stock(x).array).all()


def test_paper_has_no_second_derivatives(comm):
    x = chainer.Variable(batch((4, 5), "float64")[0])
    y = F.sum(F.sin(paper(comm)[0](x)))
    (gx,) = chainer.grad([y], [x], enable_double_backprop=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        F.sum(gx * gx).backward()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"n_allreduces": 0}, "n_allreduces is 1 or 2, not 0"),
        ({"n_allreduces": 3}, "n_allreduces is 1 or 2, not 3"),
        ({"backward": "global"}, "backward is 'exact' or 'local', not 'global'"),
    ],
)
def test_paper_refuses_bad_options(comm, options, message):
    with pytest.raises(ValueError, match=message):
        PaperBatchNormalization(5, comm, **options)


@pytest.mark.parametrize("n_allreduces", [1, 2])
@pytest.mark.parametrize("backward", ["exact", "local"])
def test_paper_makes_so_many_allreduces(comm, n_allreduces, backward, monkeypatch):
    monkeypatch.setenv("CHAINER_CROSSBN_COLLECTIVE", "mpi")
    counting = Counting(comm.mpi_comm.Dup())
    link, _, _ = paper(
        chainermn.create_communicator("naive", counting),
        n_allreduces=n_allreduces,
        backward=backward,
    )
    x, gy = batch((4, 5, 2), "float64", seed=comm.rank)
    for _ in range(2):  # until the ranks have agreed on the order
        run(link, x, gy)
    counting.sent.clear()
    y = link(chainer.Variable(x))
    assert len(counting.sent) == (n_allreduces if comm.size > 1 else 0)
    counting.sent.clear()
    y.grad = gy
    y.backward()
    communicates = comm.size > 1 and backward == "exact"
    assert len(counting.sent) == (n_allreduces if communicates else 0)


# Layer and group normalization


def normalized_rows(rows, gy, gain, bias, eps):
    """Normalize each row by its own mean and variance; return y, gx and x_hat.

    A row takes the place of a channel of batch normalization, whose gamma is 1.
    """
    one, zero = np.ones(len(rows)), np.zeros(len(rows))
    found = batch_normalization(rows.T, (gy * gain).T, one, zero, eps)
    x_hat = found["y"].T
    return gain * x_hat + bias, found["gx"].T, x_hat


@both_dtypes
@pytest.mark.parametrize("tail", [(7,), (3, 4, 2)])
def test_layer_normalization(comm, tail, dtype):
    """However the images are shared over the ranks."""
    counts = unequal(comm)
    mine = part_of(comm, counts)
    x, gy = batch((sum(counts), *tail), dtype)
    link = LayerNormalization()
    link(x[mine])
    gain, bias = parameters((np.prod(tail),), dtype)
    assert link.gamma.shape == link.beta.shape == gain.shape
    link.gamma.array[...], link.beta.array[...] = gain, bias
    y, gx = run(link, x[mine], gy[mine])
    rows, grows = (v.astype("float64").reshape(len(x), -1) for v in (x, gy))
    whole_y, whole_gx, x_hat = normalized_rows(rows, grows, gain, bias, eps=1e-6)
    limit = TOLERANCE[dtype]
    assert y.dtype == gx.dtype == x.dtype
    assert error(y, whole_y.reshape(x.shape)[mine]) < limit
    assert error(gx, whole_gx.reshape(x.shape)[mine]) < limit
    ggain, gbias = (comm.allreduce(p.grad) for p in (link.gamma, link.beta))
    assert error(ggain, (grows * x_hat).sum(axis=0)) < limit
    assert error(gbias, grows.sum(axis=0)) < limit


@both_dtypes
@pytest.mark.parametrize(
    "channels,wanted,n_groups", [(6, 4, 3), (8, 32, 8), (8, 2, 2), (7, 5, 1)]
)
def test_group_normalization(comm, channels, wanted, n_groups, dtype):
    """In as many groups as wanted, or the most below that divide the channels."""
    counts = unequal(comm)
    mine = part_of(comm, counts)
    x, gy = batch((sum(counts), channels, 4, 2), dtype)
    link = normalizations.create("group", comm, groups=wanted).norm(channels, 0, 1)
    gamma, beta = parameters((channels,), dtype)
    link.gamma.array[...], link.beta.array[...] = gamma, beta
    y, gx = run(link, x[mine], gy[mine])
    rows, grows, gain, bias = (
        np.broadcast_to(v, x.shape).astype("float64").reshape(len(x) * n_groups, -1)
        for v in (x, gy, gamma[:, None, None], beta[:, None, None])
    )
    whole_y, whole_gx, x_hat = normalized_rows(rows, grows, gain, bias, eps=1e-5)
    limit = TOLERANCE[dtype]
    assert error(y, whole_y.reshape(x.shape)[mine]) < limit
    assert error(gx, whole_gx.reshape(x.shape)[mine]) < limit
    ggamma, gbeta = (comm.allreduce(p.grad) for p in (link.gamma, link.beta))
    product = (grows * x_hat).reshape(x.shape)
    assert error(ggamma, product.sum(axis=(0, 2, 3))) < limit
    assert error(gbeta, gy.sum(axis=(0, 2, 3), dtype="float64")) < limit


# Weight normalization

LINKS = {
    "Convolution2D": (lambda: L.Convolution2D(3, 4, 3), (3, 9, 9)),
    "Linear": (lambda: L.Linear(6, 4), (6,)),
}
each_link = pytest.mark.parametrize("kind", LINKS)


def weight_normalized(kind, seed=0):
    """Return a link with the hook, one without, and the shape of their inputs."""
    make, tail = LINKS[kind]
    np.random.seed(seed)
    plain = make()
    plain.b.array[...] = np.random.randn(*plain.b.shape)
    return copy.deepcopy(plain).add_hook(WeightNormalization()), plain, tail


def arbitrary(kind, seed=0):
    """Return a link whose ``g`` is not the length of its weights, and its input."""
    link, _, tail = weight_normalized(kind, seed)
    link.g.array[...] = np.random.randn(*link.g.shape)
    return link, batch((3, *tail), "float64")[0]


def lengths_of(v):
    return np.sqrt((v**2).sum(axis=tuple(range(1, v.ndim))))


def per_output(factors, v):
    """Shape one factor an output so that it broadcasts over the weights ``v``."""
    return factors.reshape(-1, *[1] * (v.ndim - 1))


@both_dtypes
@each_link
def test_weight_normalization_starts_as_the_plain_link(comm, kind, dtype):
    link, plain, tail = weight_normalized(kind)
    x, _ = batch((3, *tail), dtype)
    y = link(x).array
    assert y.dtype == link.g.dtype == np.dtype(dtype)
    assert error(link.g.array, lengths_of(plain.W.array)) < TOLERANCE[dtype]
    assert error(y, plain(x).array) < TOLERANCE[dtype]


@each_link
def test_weight_normalization_by_its_equations(comm, kind):
    """Salimans and Kingma (2016), equations 2 and 3."""
    link, plain, tail = weight_normalized(kind)
    x, _ = batch((3, *tail), "float64", seed=comm.rank)
    gy = np.random.randn(*plain(x).shape)
    v, g = link.W.array, np.random.randn(*link.g.shape)
    length = lengths_of(v)
    link.g.array[...] = g
    plain.W.array[...] = per_output(g / length, v) * v
    y, gx = run(link, x, gy)
    plain_y, plain_gx = run(plain, x, gy)
    grad_w = plain.W.grad
    grad_g = (grad_w * v).sum(axis=tuple(range(1, v.ndim))) / length
    grad_v = (
        per_output(g / length, v) * grad_w - per_output(g * grad_g / length**2, v) * v
    )
    for found, expected in (
        (y, plain_y),
        (gx, plain_gx),
        (link.b.grad, plain.b.grad),
        (link.g.grad, grad_g),
        (link.W.grad, grad_v),
    ):
        assert error(found, expected) < 1e-11


@each_link
def test_weights_are_parameters_again_after_use(comm, kind):
    link, x = arbitrary(kind)
    parameters = dict(link.namedparams())
    values = {name: p.array.copy() for name, p in parameters.items()}
    link(x)
    assert sorted(parameters) == ["/W", "/b", "/g"]
    assert link.W is parameters["/W"]
    for name, parameter in link.namedparams():
        assert parameter is parameters[name]
        assert (parameter.array == values[name]).all()


@each_link
def test_weights_are_parameters_again_in_the_call_after_an_error(comm, kind):
    link, x = arbitrary(kind)
    v, y = link.W, link(x).array
    with pytest.raises(type_check.InvalidType):
        link(x[:, :-1])
    assert (link(x).array == y).all()
    assert link.W is v


@each_link
def test_weight_normalization_is_saved(comm, kind, tmp_path):
    link, x = arbitrary(kind)
    other, _ = arbitrary(kind, seed=1)
    path = tmp_path / "link.npz"
    chainer.serializers.save_npz(path, link)
    with np.load(path) as saved:
        assert sorted(saved) == ["W", "b", "g"]
    chainer.serializers.load_npz(path, other)
    assert (other(x).array == link(x).array).all()


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda link: link.copy(),
        lambda link: link.copy("copy"),
        lambda link: copy.deepcopy(chainer.Sequential(link))[0],
        lambda link: chainer.Sequential(link).copy()[0],
    ],
    ids=["deepcopy", "share", "copy", "deepcopy of a chain", "copy of a chain"],
)
@each_link
def test_weight_normalization_is_copied(comm, kind, copied):
    link, x = arbitrary(kind)
    y = link(x)
    other = copied(link)
    link.cleargrads()
    its_y, _ = run(other, x, np.ones(y.shape))
    assert (its_y == y.array).all()
    assert (link(x).array == y.array).all()
    # what is learned is learned by the copy
    assert all(p.grad is not None for p in other.params())
    assert all(p.grad is None for p in link.params())


def initialize(link, comm):
    link.local_link_hooks["WeightNormalization"].initialize_from_next_batch(comm)


@both_dtypes
@pytest.mark.parametrize("share", ["equal", "unequal", "an empty rank"])
@each_link
def test_weight_normalization_by_a_mini_batch_of_all_ranks(comm, kind, share, dtype):
    counts = [3] * comm.size if share == "equal" else list(unequal(comm))
    if share == "an empty rank" and comm.size > 1:
        counts[-1] = 0
    link, _, tail = weight_normalized(kind)
    x, _ = batch((sum(counts), *tail), dtype)
    initialize(link, comm)
    y = np.concatenate(comm.allreduce_obj([link(x[part_of(comm, counts)]).array]))
    axes = (0, *range(2, y.ndim))
    assert np.abs(y.mean(axis=axes, dtype="float64")).max() < TOLERANCE[dtype]
    assert np.abs(y.var(axis=axes, dtype="float64") - 1).max() < TOLERANCE[dtype]
    g, b = link.g.array.copy(), link.b.array.copy()
    assert equal_on_all_ranks(comm, g, b)
    if comm.rank == 0:  # the next mini-batch is one as any other
        link(2 * x)
    assert (link.g.array == g).all() and (link.b.array == b).all()


def test_an_output_that_is_always_zero_keeps_its_length(comm):
    """Its weights are for the last input alone."""
    link, plain, tail = weight_normalized("Linear")
    link.W.array[0, :-1] = 0
    link.g.array[...] = lengths_of(link.W.array)
    x, _ = batch((3, *tail), "float64", seed=comm.rank)
    x[:, -1] = 0
    initialize(link, comm)
    assert (link(x).array[:, 0] == 0).all()
    assert error(link.g.array[0], abs(plain.W.array[0, -1])) < 1e-11


@both_dtypes
def test_outputs_that_are_always_the_same_keep_their_length(comm, dtype):
    for n in range(1, 9):
        link, plain, tail = weight_normalized("Convolution2D")
        initialize(link, comm)
        link(np.full((n, *tail), 0.7, dtype))
        assert error(link.g.array, lengths_of(plain.W.array)) < TOLERANCE[dtype]


@pytest.mark.parametrize("init", ["norm", "data"])
def test_weight_normalization_prepares_a_network(comm, init):
    normalization = normalizations.create("weight", comm, weight_norm_init=init)
    np.random.seed(0)
    model = VGG16(10, normalization, width=2, fc_units=8, dropout=0)
    before = [p.array.copy() for p in model.params()]
    x = as_input(images_of(8, seed=comm.rank)[0], CPU)
    normalization.prepare(model, x)
    after = [p.array for p in model.params()]
    assert equal_on_all_ranks(comm, *after)
    if init == "norm":
        assert all((a == b).all() for a, b in zip(after, before))
        return
    logits = np.concatenate(comm.allreduce_obj([model(x).array]))
    assert np.abs(logits.mean(axis=0)).max() < 1e-11
    assert np.abs(logits.var(axis=0) - 1).max() < 1e-11


# Some of the layers

CLASSES = {
    "none": type(None),
    "normal": CrossBatchNormalization,
    "multigpu": CrossBatchNormalization,
    "paper": PaperBatchNormalization,
    "chainermn": MultiNodeBatchNormalization,
    "chainer": L.BatchNormalization,
    "layer": LayerNormalization,
    "group": L.GroupNormalization,
}


@pytest.mark.parametrize("bn", normalizations.OF_LAYERS)
@pytest.mark.parametrize("rest", ["normal", "none"])
@pytest.mark.parametrize(
    "layers,chosen",
    [
        (None, range(13)),
        (("front", 4), range(4)),
        (("back", 3), range(10, 13)),
        (("front", 13), range(13)),
        (("back", 1), range(12, 13)),
    ],
)
def test_which_layers_are_of_the_kind(comm, bn, rest, layers, chosen):
    model = VGG16(
        10,
        normalizations.create(bn, comm, layers=layers, rest=rest),
        width=1,
        fc_units=4,
    )
    blocks = [block for stage in model.stages for block in stage]
    assert len(blocks) == 13
    ranks = {"normal": 1, "multigpu": comm.size}
    for index, block in enumerate(blocks):
        name = bn if index in chosen else rest
        kind = type(block.norm)
        # ChainerMN's own is wrapped, for link hooks to be called.
        assert CLASSES[name] in (kind.__mro__[:2] if name == "chainermn" else [kind])
        assert (block.conv.b is None) == (name != "none")
        if name in ranks:
            assert block.norm.comm.size == ranks[name]


# Groups of ranks


def test_groups_of_one_rank_are_normal(comm):
    links = [
        normalizations.create(name, comm, **options).norm(3, 0, 1)
        for name, options in (("multigpu", {"bn_group_size": 1}), ("normal", {}))
    ]
    for seed in range(2):
        x, gy = batch((2 + comm.rank, 3, 4), "float64", seed=seed)
        of_groups, normal = (
            (*run(link, x, gy), link.gamma.grad, link.avg_mean, link.avg_var)
            for link in links
        )
        for a, b in zip(of_groups, normal):
            assert (a == b).all()


@pytest.mark.parametrize("bn", ["multigpu", "paper", "chainermn"])
def test_groups_of_two_ranks(comm, bn):
    if comm.size % 2:
        return
    link = normalizations.create(bn, comm, bn_group_size=2).norm(3, 0, 1)
    # each group has a batch of its own
    x, gy = batch((6, 3, 4), "float64", seed=comm.rank // 2)
    mine = slice(0, 3) if comm.rank % 2 == 0 else slice(3, 6)
    y, gx = run(link, x[mine], gy[mine])
    whole = batch_normalization(x, gy, np.ones(3), np.zeros(3))
    assert error(y, whole["y"][mine]) < 1e-11
    assert error(gx, whole["gx"][mine]) < 1e-11
    assert error(link.avg_mean, 0.1 * whole["mean"]) < 1e-11


def test_chainermn_warns_of_nothing(comm):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normalizations.create("chainermn", comm).norm(3, 0, 1)


# Training


def trained(comm, bn, **options):
    """Return VGG16 after two steps, made ready as train_cifar.py does."""
    normalization = normalizations.create(bn, comm, **options)
    np.random.seed(0)
    model = VGG16(10, normalization, width=2, fc_units=8, dropout=0)
    images, labels = images_of(4 * comm.size)
    normalization.prepare(model, as_input(images[comm.rank :: comm.size], CPU))
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.MomentumSGD(0.01), comm
    ).setup(model)
    prime(optimizer, comm)
    iterator = ShareIterator(len(images), 2, comm.rank, comm.size, seed=3)
    updater = GlobalUpdater(iterator, optimizer, images, labels, comm, CPU)
    for _ in range(2):
        updater.update()
    return model


@both_dtypes
@pytest.mark.parametrize(
    "bn,options",
    [
        ("multigpu", {"bn_group_size": 1}),
        ("multigpu", {"bn_group_size": 2}),
        ("multigpu", {"layers": ("front", 4), "rest": "none"}),
        ("paper", {"paper_allreduces": 1, "paper_backward": "local"}),
        ("paper", {"bn_group_size": 2, "layers": ("back", 5)}),
        ("chainermn", {"bn_group_size": 2}),
        ("layer", {"layers": ("back", 3)}),
        ("group", {"groups": 2}),
        ("weight", {"weight_norm_init": "data"}),
    ],
    ids=str,
)
def test_every_option_stays_equal_on_all_ranks(comm, bn, options, dtype):
    if comm.size % options.get("bn_group_size", 1):
        return
    model = trained(comm, bn, **options)
    parameters = [p.array for p in model.params()]
    assert all(np.isfinite(p).all() for p in parameters)
    assert equal_on_all_ranks(comm, *parameters)


@pytest.mark.parametrize("bn", ["multigpu", "paper", "chainermn"])
@pytest.mark.parametrize("size", [1, 2])
def test_running_statistics_of_groups_are_averaged_as_a_mixture(comm, bn, size):
    if comm.size % size:
        return
    model = trained(comm, bn, bn_group_size=size)
    found = averaged(model, comm)
    if size == comm.size:
        assert found is model or bn == "chainermn"
        return
    for stage, its_stage in zip(model.stages, found.stages):
        link, averages = stage[0].norm, its_stage[0].norm
        before = link.avg_mean.copy(), link.avg_var.copy()
        means, variances = (np.array(comm.allreduce_obj([v])) for v in before)
        mean = means.mean(axis=0)
        assert not (means == mean).all()
        assert error(averages.avg_mean, mean) < 1e-11
        mixture = (variances + means**2).mean(axis=0) - mean**2
        assert error(averages.avg_var, mixture) < 1e-11
        assert (link.avg_mean == before[0]).all()
        assert (link.avg_var == before[1]).all()
