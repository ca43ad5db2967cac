"""Training on all ranks, compared with one rank that has the whole batch."""

import chainer
import chainer.links as L
import chainermn
import numpy as np
import pytest
from reference import error

from chainer_crossbn import CrossBatchNormalization
from chainer_crossbn.models import VGG16, normalizations
from chainer_crossbn.training.extensions import EpochStatistics, GlobalEvaluator
from chainer_crossbn.training.iterators import ShareIterator
from chainer_crossbn.training.local_statistics import deviations
from chainer_crossbn.training.running_statistics import averaged, of_rank_zero
from chainer_crossbn.training.updaters import GlobalUpdater, prime

CPU = chainer.get_device("@numpy")


def images_of(n, seed=0):
    state = np.random.RandomState(seed)
    images = state.randint(0, 256, (n, 3, 32, 32)).astype(np.uint8)
    return images, state.randint(0, 10, n).astype(np.int32)


def vgg(normalization, seed=0, **kwargs):
    np.random.seed(seed)
    return VGG16(10, normalization, width=8, fc_units=16, dropout=0, **kwargs)


def trained(comm, bn, n_images, batchsize, n_steps):
    """Return the model and the updater after some steps on ``n_images`` images."""
    model = vgg(normalizations.create(bn, comm), seed=comm.rank)
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.MomentumSGD(0.01), comm
    ).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    prime(optimizer, comm)
    iterator = ShareIterator(n_images, batchsize, comm.rank, comm.size, seed=3)
    updater = GlobalUpdater(iterator, optimizer, *images_of(n_images), comm, CPU)
    for _ in range(n_steps):
        updater.update()
    return model, updater


def values_of(model):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(model)
    return serializer.target


@pytest.fixture
def float64():
    with chainer.using_config("dtype", np.float64):
        yield


@pytest.mark.parametrize("rest", [0, 5])
def test_steps_equal_those_of_one_rank_with_the_whole_batch(comm, float64, rest):
    """The second step is of ``rest`` images, which the ranks share unequally."""
    alone = comm.split(comm.rank, 0)
    n = 4 * comm.size + rest
    n_steps = 2 if rest else 1
    ours, _ = trained(comm, "multigpu", n, 4, n_steps)
    stock, _ = trained(alone, "chainer", n, 4 * comm.size, n_steps)
    theirs = values_of(stock)
    values = values_of(ours)
    assert list(values) == list(theirs)
    for name, value in values.items():
        assert error(value, theirs[name]) < 1e-10, name


def test_the_first_update_is_a_step(comm):
    model = vgg(normalizations.create("multigpu", comm), seed=comm.rank)
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.SGD(1.0), comm
    ).setup(model)
    model.fc8.b.array[...] = comm.rank
    model.stages[0][0].norm.avg_mean[...] = comm.rank + 7
    prime(optimizer, comm)
    assert (model.fc8.b.array == 0).all()
    assert (model.stages[0][0].norm.avg_mean == 7).all()
    model.cleargrads()
    for parameter in model.params():
        parameter.grad = np.zeros_like(parameter.array)
    model.fc8.b.grad[...] = comm.rank + 1
    optimizer.update()
    assert np.allclose(model.fc8.b.array, -(comm.size + 1) / 2)


@pytest.mark.parametrize("bn", normalizations.NAMES)
def test_every_network_stays_equal_on_all_ranks(comm, bn):
    model, _ = trained(comm, bn, 4 * comm.size, 2, 2)
    parameters = b"".join(p.array.tobytes() for p in model.params())
    assert len(set(comm.allreduce_obj([parameters]))) == 1
    for parameter in model.params():
        assert parameter.grad.flags.c_contiguous


def test_running_statistics_are_averaged_as_a_mixture(comm):
    model, _ = trained(comm, "normal", 4 * comm.size, 2, 2)
    link = model.stages[0][0].norm
    before = link.avg_mean.copy(), link.avg_var.copy()
    copied = averaged(model, comm).stages[0][0].norm
    means, variances = (np.array(comm.allreduce_obj([v])) for v in before)
    assert error(copied.avg_mean, means.mean(axis=0)) < 1e-6
    mixture = (variances + means**2).mean(axis=0) - means.mean(axis=0) ** 2
    assert error(copied.avg_var, mixture) < 1e-6
    assert (link.avg_mean == before[0]).all() and (link.avg_var == before[1]).all()
    within = averaged(model, comm, between=False).stages[0][0].norm
    assert error(within.avg_mean, means.mean(axis=0)) < 1e-6
    assert error(within.avg_var, variances.mean(axis=0)) < 1e-6
    of_zero = of_rank_zero(model, comm).stages[0][0].norm
    assert (of_zero.avg_mean == means[0]).all()
    assert (of_zero.avg_var == variances[0]).all()


def test_nothing_is_averaged_where_the_ranks_agree(comm):
    for bn in ("none", "multigpu"):
        model = vgg(normalizations.create(bn, comm))
        assert averaged(model, comm) is model


def test_evaluation_counts_every_image_once(comm):
    images, labels = images_of(2 * comm.size + 1)
    model = vgg(normalizations.create("multigpu", comm))
    result = GlobalEvaluator(model, {"validation": (images, labels)}, comm, CPU)()
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        logits = model(images.astype("float32") / 255).array
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(labels)), labels].mean()
    assert result["validation/main/loss"] == pytest.approx(loss, rel=1e-5)
    accuracy = (logits.argmax(axis=1) == labels).mean()
    assert result["validation/main/accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("bn", ["normal", "multigpu"])
def test_deviations_of_local_from_global_statistics(comm, bn):
    model = vgg(normalizations.create(bn, comm))
    images = images_of(3 * comm.size)[0].astype("float32") / 255
    mine = slice(3 * comm.rank, 3 * comm.rank + 3)
    layers = deviations(model, images[mine], comm)
    assert len(layers) == 13
    first = model.stages[0][0]
    outputs = first.conv(images).array.astype("float64")
    means, variances = [], []
    for part in np.split(outputs, comm.size):
        means.append(part.mean(axis=(0, 2, 3)))
        variances.append(part.var(axis=(0, 2, 3)) + first.norm.eps)
    mean = outputs.mean(axis=(0, 2, 3))
    var = outputs.var(axis=(0, 2, 3)) + first.norm.eps
    assert layers[0]["values"] == 3 * 32 * 32
    expected = np.mean(abs(np.array(means) - mean) / var**0.5)
    assert layers[0]["mean"] == pytest.approx(expected, rel=1e-4, abs=1e-9)
    expected = np.mean(abs(np.array(variances) / var - 1))
    assert layers[0]["variance"] == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert (layers[-1]["mean"] > 1e-3) == (comm.size > 1)


def test_no_deviations_without_batch_normalization(comm):
    for bn in ("none", "layer"):
        model = vgg(normalizations.create(bn, comm))
        assert deviations(model, images_of(1)[0].astype("float32"), comm) == []


def test_epoch_statistics_are_over_all_ranks(comm):
    class Trainer:
        updater = trained(comm, "multigpu", 4 * comm.size + 2 * comm.size, 4, 2)[1]

    local = comm.allreduce(Trainer.updater.sums)
    reporter = chainer.Reporter()
    with reporter.scope({}):
        EpochStatistics(comm)(Trainer)
        observation = reporter.observation
    assert local[2] == 6 * comm.size
    assert observation["main/loss"] == pytest.approx(local[0] / local[2])
    assert observation["main/accuracy"] == pytest.approx(local[1] / local[2])
    assert (Trainer.updater.sums == 0).all()


@pytest.mark.parametrize("left,dropped", [(0, 0), (1, 1), (-1, 0)])
def test_shares_cover_each_epoch_once(comm, left, dropped):
    n = 3 * comm.size * 2 + left
    iterator = ShareIterator(n, 3, comm.rank, comm.size, seed=1)
    dropped = 0 if comm.size == 1 else dropped
    assert iterator.dropped == dropped
    orders = []
    for epoch in (1, 2):
        shares = []
        while iterator.epoch < epoch:
            indices, total = next(iterator)
            assert len(indices) - total / comm.size < 1
            assert len(indices) >= 1
            assert comm.allreduce_obj(len(indices)) == total
            shares += comm.allreduce_obj([indices.tolist()])
        order = [i for share in shares for i in share]
        assert len(set(order)) == len(order) == n - dropped
        orders.append(order)
    assert orders[0] != orders[1]


def test_vgg16_has_the_layers_of_the_paper(comm):
    full = VGG16(10, normalizations.create("none", comm))
    assert sum(p.size for p in full.params()) == 33_638_218
    full = VGG16(10, normalizations.create("multigpu", comm))
    links = list(full.links())
    assert sum(isinstance(link, CrossBatchNormalization) for link in links) == 13
    assert sum(isinstance(link, L.Convolution2D) for link in links) == 13
    assert sum(isinstance(link, L.Linear) for link in links) == 3
    assert all(link.b is None for link in links if isinstance(link, L.Convolution2D))
    # a bias goes and two vectors come with each normalization
    assert sum(p.size for p in full.params()) == 33_638_218 + 4224


def test_snapshots_hold_the_state_of_updater_and_extensions(comm):
    _, updater = trained(comm, "multigpu", 12 * comm.size, 4, 2)
    saved = chainer.serializers.DictionarySerializer()
    updater.serialize(saved)
    rest = [next(updater.get_iterator("main")) for _ in range(4)]

    _, other = trained(comm, "multigpu", 12 * comm.size, 4, 1)
    other.serialize(chainer.serializers.NpzDeserializer(saved.target))
    assert other.iteration == 2
    assert (other.sums == updater.sums).all()
    assert other.train_time == updater.train_time
    for indices, total in rest:
        its_indices, its_total = next(other.get_iterator("main"))
        assert its_indices.tolist() == indices.tolist()
        assert its_total == total

    saved = chainer.serializers.DictionarySerializer()
    statistics = EpochStatistics(comm)
    statistics._previous_time = 7.0
    statistics.serialize(saved)
    other = EpochStatistics(comm)
    other.serialize(chainer.serializers.NpzDeserializer(saved.target))
    assert other._previous_time == 7.0
