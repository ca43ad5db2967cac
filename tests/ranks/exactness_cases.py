"""What is exact where: one section a row of docs/exactness.md.

All ranks know the whole batch; each gives the link its part. The truth is the whole
batch in long double (tests/reference.py).
"""

import copy
import os
import pickle
import warnings

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest
from chainer import backend
from chainermn.links import MultiNodeBatchNormalization
from mpi4py import MPI
from reference import batch_normalization, error

from chainer_crossbn import (
    CollectiveError,
    CrossBatchNormalization,
    cross_batch_normalization,
)
from chainer_crossbn.collectives.shared_memory import Slots
from chainer_crossbn.training.updaters import prime

# Half a unit in the last place of float16 is 4.9e-4 of the largest value.
TOLERANCE = {"float16": 5e-4, "float32": 1e-5, "float64": 1e-11}
DTYPES = sorted(TOLERANCE)
UNEQUAL = (8, 4, 1, 3)


def unequal(comm):
    return UNEQUAL[: comm.size]


def part_of(comm, counts):
    """Return the slice of the whole batch that is this rank's."""
    ends = np.cumsum([0, *counts])
    return slice(ends[comm.rank], ends[comm.rank + 1])


def batch(shape, dtype, mean=3.0, std=2.0, seed=0):
    """Return a whole batch and the gradients of its outputs, equal on all ranks."""
    state = np.random.RandomState(seed)
    x = state.randn(*shape) * std + mean
    return x.astype(dtype), state.randn(*shape).astype(dtype)


def parameters(channels, dtype, seed=1):
    state = np.random.RandomState(seed)
    gamma = state.uniform(0.5, 1.5, channels)
    return gamma.astype(dtype), state.randn(*gamma.shape).astype(dtype)


def run(link, x, gy):
    """Return y and gx, in host memory whatever the device of the link."""
    x = chainer.Variable(link.device.send(x))
    y = link(x)
    y.grad = link.device.send(gy)
    link.cleargrads()
    y.backward()
    return to_host(y.array), to_host(x.grad)


def to_host(array):
    return backend.CpuDevice().send(array)


def check(comm, x, gy, counts, axis=None, dtype=None, device="@numpy"):
    """Check y, gx, summed gradients and running statistics against the whole batch."""
    kept = [i for i in range(x.ndim) if i not in (axis or (0, *range(2, x.ndim)))]
    channels = [x.shape[i] for i in kept]
    # As mixed16, unless a dtype is given.
    dtype = np.dtype(dtype or np.promote_types(x.dtype, np.float32))
    gamma, beta = parameters(channels, dtype)
    link = CrossBatchNormalization(tuple(channels), comm, dtype=dtype, axis=axis)
    link.gamma.array[...], link.beta.array[...] = gamma, beta
    link.to_device(device)
    mine = part_of(comm, counts)
    y, gx = run(link, x[mine], gy[mine])
    link.to_device("@numpy")
    whole = batch_normalization(x, gy, gamma, beta, axis=axis)
    limit = TOLERANCE[x.dtype.name]
    assert y.dtype == gx.dtype == x.dtype
    assert error(y, whole["y"][mine]) < limit
    assert error(gx, whole["gx"][mine]) < limit
    limit = TOLERANCE[dtype.name]
    for parameter, name in ((link.gamma, "ggamma"), (link.beta, "gbeta")):
        assert parameter.grad.dtype == dtype
        total = comm.allreduce(parameter.grad.astype(np.float64))
        assert error(total, whole[name]) < limit * comm.size
    n = whole["n"]
    unbiased = whole["var"] * n / max(n - 1, 1)
    assert error(link.avg_mean, 0.1 * whole["mean"]) < limit
    assert error(link.avg_var, 0.9 + 0.1 * unbiased) < limit


SHAPES = [
    ((4,), None),
    ((4, 5), None),
    ((3, 5, 4), None),
    ((5, 6, 3, 2), None),
    ((4, 5), (0,)),
    ((5, 3), (0, 1)),
    ((2, 4, 5), (0, 2)),
    ((2, 4, 5), (0, 3)),
    ((3, 2, 2, 4), (0, 1, 3)),
]


# Unequal local batches; dtypes, shapes and axes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tail,axis", SHAPES)
def test_unequal_local_batches(comm, tail, axis, dtype):
    counts = unequal(comm)
    check(comm, *batch((sum(counts), *tail), dtype), counts, axis)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_local_batches(comm, dtype):
    counts = [4] * comm.size
    check(comm, *batch((sum(counts), 5, 3, 2), dtype), counts)


def test_float16_parameters(comm):
    counts = unequal(comm)
    check(comm, *batch((sum(counts), 5, 3), "float16"), counts, dtype="float16")


@pytest.mark.parametrize("dtype", [chainer.mixed16, np.float16], ids=str)
def test_default_dtypes(comm, dtype):
    with chainer.using_config("dtype", dtype):
        ours, theirs = CrossBatchNormalization(3, comm), L.BatchNormalization(3)
        x = batch((4, 3), "float16")[0]
        assert ours(x).dtype == theirs(x).dtype == np.float16
    assert ours.gamma.dtype == theirs.gamma.dtype
    assert ours.avg_var.dtype == theirs.avg_var.dtype


VIEWS = {
    "Fortran order": np.asfortranarray,
    "every second column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    "channels last": lambda a: np.moveaxis(
        np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1
    ),
    "broadcast": lambda a: np.broadcast_to(a[..., :1], a.shape),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", VIEWS)
def test_arrays_need_not_be_contiguous(comm, view, dtype):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 4, 3, 6), dtype)
    change = VIEWS[view]
    check(comm, change(x), change(gy), counts)
    check(comm, change(x), gy, counts)
    check(comm, x, change(gy), counts)


# A rank without images


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("empty", ["first", "last", "all but the last"])
def test_a_rank_without_images(comm, empty, dtype):
    if comm.size == 1:
        return
    counts = [3] * comm.size
    if empty == "all but the last":
        counts[:-1] = [0] * (comm.size - 1)
    else:
        counts[0 if empty == "first" else -1] = 0
    check(comm, *batch((sum(counts), 5, 2, 2), dtype), counts)


# One value a channel on each rank


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_value_a_channel_on_each_rank(comm, dtype, seed):
    if comm.size == 1:
        return
    x, gy = batch((comm.size, 16), dtype, mean=1, std=1, seed=seed)
    check(comm, x, gy, [1] * comm.size)


def test_one_value_in_all(comm):
    """Chainer's warning, and its result: beta."""
    counts = [1] + [0] * (comm.size - 1)
    x, gy = batch((1, 4), "float32")
    mine = part_of(comm, counts)
    link, stock = CrossBatchNormalization(4, comm), L.BatchNormalization(4)
    with pytest.warns(UserWarning, match="no more than one sample"):
        y, gx = run(link, x[mine], gy[mine])
    with pytest.warns(UserWarning, match="no more than one sample"):
        stock_y, stock_gx = run(stock, x, gy)
    assert error(y, stock_y[mine]) == 0
    assert error(gx, stock_gx[mine]) == 0
    assert error(link.avg_mean, stock.avg_mean) < 1e-6
    assert error(link.avg_var, stock.avg_var) < 1e-6


def test_all_ranks_empty(comm):
    with pytest.raises(ValueError, match="mini-batches of all ranks are empty"):
        CrossBatchNormalization(3, comm)(np.zeros((0, 3), "float32"))
    # and all can go on
    counts = unequal(comm)
    check(comm, *batch((sum(counts), 3), "float32"), counts)


# A large mean


@pytest.mark.parametrize("view", ["as it is", "channels last"])
@pytest.mark.parametrize("mean,std", [(1000, 0.1), (1e4, 1), (-1e6, 10)])
def test_a_large_mean(comm, mean, std, view):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 8, 8), "float32", mean, std)
    if view != "as it is":
        x, gy = VIEWS[view](x), VIEWS[view](gy)
    check(comm, x, gy, counts)


@pytest.mark.parametrize("mean,std", [(1000, 1), (1e4, 1)])
def test_a_large_mean_in_float64(comm, mean, std):
    counts = unequal(comm)
    check(comm, *batch((sum(counts), 3, 8, 8), "float64", mean, std), counts)


# Values at the edge


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0, 0.1, -3, 1000])
def test_constant_input(comm, value, dtype):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 4), dtype)
    x[...] = value
    check(comm, x, gy, counts)


@pytest.mark.parametrize("dtype,size", [("float32", 1e-39), ("float64", 1e-309)])
def test_denormals(comm, dtype, size):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 4), dtype, mean=0, std=size)
    assert 0 < np.abs(x).max() < np.finfo(dtype).tiny
    mine = part_of(comm, counts)
    y, gx = run(CrossBatchNormalization(3, comm, dtype=dtype), x[mine], gy[mine])
    whole = batch_normalization(x, gy, np.ones(3), np.zeros(3))
    assert np.abs(whole["y"]).max() > 0
    assert error(y, whole["y"][mine]) < TOLERANCE[dtype]
    assert error(gx, whole["gx"][mine]) < TOLERANCE[dtype]


def test_the_largest_float16(comm):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 4), "float16", mean=0)
    # The gradient of so wide an input is small: keep it from float16's denormals.
    check(comm, np.where(x < 0, -65504, 65504).astype("float16"), gy * 1000, counts)


# NaN and Inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_shows_on_all_ranks_in_its_channel(comm, value):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 2, 2), "float32")
    clean = x.copy()
    x[-1, 1, 0, 1] = value
    mine = part_of(comm, counts)
    link, untouched = (CrossBatchNormalization(3, comm) for _ in range(2))
    with np.errstate(invalid="ignore"):
        y, gx = run(link, x[mine], gy[mine])
    clean_y, clean_gx = run(untouched, clean[mine], gy[mine])
    assert np.isnan(y[:, 1]).all() and np.isnan(gx[:, 1]).all()
    assert not np.isfinite(link.avg_mean[1]) and not np.isfinite(link.avg_var[1])
    others = [0, 2]
    assert (y[:, others] == clean_y[:, others]).all()
    assert (gx[:, others] == clean_gx[:, others]).all()
    for name in ("avg_mean", "avg_var"):
        assert (getattr(link, name) == getattr(untouched, name))[others].all()
    # the next clean batch is as if nothing had been
    y, gx = run(link, clean[mine], gy[mine])
    assert (y == clean_y).all() and (gx == clean_gx).all()


# No gamma, no beta, frozen ones


class Bare(chainer.Chain):
    def __init__(self, bn):
        super().__init__()
        with self.init_scope():
            self.bn = bn

    def forward(self, x):
        return self.bn(x)


FROZEN = {
    "none": lambda link: None,
    "gamma": lambda link: setattr(link.gamma.update_rule, "enabled", False),
    "beta": lambda link: setattr(link.beta.update_rule, "enabled", False),
    "both": lambda link: link.disable_update(),
}


@pytest.mark.parametrize(
    "options,frozen",
    [
        *(({}, frozen) for frozen in FROZEN),
        ({"use_gamma": False}, "none"),
        ({"use_beta": False}, "none"),
        ({"use_gamma": False, "use_beta": False}, "none"),
    ],
)
def test_parameters_absent_or_frozen(comm, options, frozen):
    """After two steps all is as L.BatchNormalization on the whole batch has it."""
    counts = [3] * comm.size
    mine = part_of(comm, counts)
    models = [
        Bare(CrossBatchNormalization(4, comm, dtype="float64", **options)),
        Bare(L.BatchNormalization(4, dtype="float64", **options)),
    ]
    sgd = [chainer.optimizers.SGD(0.1) for _ in models]
    sgd[0] = chainermn.create_multi_node_optimizer(sgd[0], comm)
    for model, optimizer in zip(models, sgd):
        optimizer.setup(model)
        FROZEN[frozen](model.bn)
    prime(sgd[0], comm)
    for seed in range(2):
        x, gy = batch((sum(counts), 4, 3), "float64", seed=seed)
        for model, optimizer, part, share in zip(
            models, sgd, (mine, slice(None)), (comm.size, 1)
        ):
            run(model, x[part], gy[part] * share)
            optimizer.update()
    values = []
    for model in models:
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(model)
        values.append(serializer.target)
    assert sorted(values[0]) == sorted(values[1])
    for name, value in values[1].items():
        assert error(values[0][name], value) < 1e-11, name


# Second derivatives


@pytest.mark.parametrize("kind", ["equal", "unequal", "an empty rank"])
def test_second_derivatives_equal_those_of_the_whole_batch(comm, kind):
    counts = {
        "equal": [4] * comm.size,
        "unequal": unequal(comm),
        "an empty rank": [4] * (comm.size - 1) + [0 if comm.size > 1 else 4],
    }[kind]
    x, gy = batch((sum(counts), 3, 4), "float64")
    gamma, beta = parameters((3,), "float64")
    mine = part_of(comm, counts)

    def penalty(normalize, x, gy):
        x, scale, shift = (chainer.Variable(v) for v in (x, gamma, beta))
        y = normalize(x, scale, shift)
        gx, ggamma = chainer.grad(
            [F.sum(y * gy)], [x, scale], enable_double_backprop=True
        )
        value = F.sum(F.sin(gx) * y) + F.sum(F.cos(gx))
        value.backward()
        return gx.array, x.grad, ggamma.array, scale.grad, shift.grad

    ours = penalty(
        lambda *inputs: cross_batch_normalization(*inputs, comm), x[mine], gy[mine]
    )
    whole = penalty(F.batch_normalization, x, gy)
    for i in (0, 1):
        assert error(ours[i], whole[i][mine]) < 1e-9
    for i in (2, 3, 4):
        assert error(comm.allreduce(ours[i]), whole[i]) < 1e-9


def test_gradient_penalty_by_finite_difference(comm):
    """Along one direction, with both sides summed over the ranks."""
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 4), "float64")
    direction = np.random.RandomState(5).randn(*x.shape)
    gamma, beta = parameters((3,), "float64")
    mine = part_of(comm, counts)

    def penalty(x):
        x = chainer.Variable(x)
        y = cross_batch_normalization(x, gamma, beta, comm)
        (gx,) = chainer.grad(
            [F.sum(y * y * gy[mine])], [x], enable_double_backprop=True
        )
        return x, F.sum(gx * gx)

    def value(step):
        return comm.allreduce_obj(
            float(penalty(x[mine] + step * direction[mine])[1].array)
        )

    variable, here = penalty(x[mine])
    here.backward()
    slope = comm.allreduce_obj(float(np.sum(variable.grad * direction[mine])))
    step = 1e-4
    coarse = (value(step) - value(-step)) / (2 * step)
    fine = (value(step / 2) - value(-step / 2)) / step
    # Richardson's extrapolation, without the error of order step**2
    assert slope == pytest.approx((4 * fine - coarse) / 3, rel=1e-8)


# Groups of ranks


@pytest.mark.parametrize("size", [1, 2])
def test_groups_of_ranks(comm, size):
    group = comm.split(comm.rank // size, comm.rank)
    # each group has a batch of its own
    x, gy = batch((3 * group.size, 4, 2), "float64", seed=comm.rank // size)
    check(group, x, gy, [3] * group.size)
    check(comm, *batch((2 * comm.size, 4), "float64"), [2] * comm.size)


# Copies, pickles, files


@pytest.mark.parametrize("which", ["all ranks", "a group"])
def test_copies_share_the_communicator(comm, which):
    if which == "a group":
        comm = comm.split(comm.rank % 2, comm.rank)
    link = CrossBatchNormalization(3, comm)
    chain = chainer.Sequential(link)
    copies = [
        copy.copy(link),
        copy.deepcopy(link),
        *(link.copy(mode) for mode in ("share", "copy", "init")),
        *link.repeat(2),
        copy.deepcopy(chain)[0],
        chain.copy(mode="copy")[0],
        chain.repeat(2)[1][0],
    ]
    x = batch((2 * comm.size, 3), "float32")[0][part_of(comm, [2] * comm.size)]
    y = link(x).array
    for copied in copies:
        assert copied.comm is comm
        assert (copied(x).array == y).all()


def test_a_copy_on_one_rank_disturbs_no_other(comm):
    link = CrossBatchNormalization(3, comm)
    if comm.rank == 0:
        copy.deepcopy(link)
        link.copy()
    CrossBatchNormalization(3, comm)(np.ones((2, 3), "float32"))


def test_pickles_leave_the_communicator_out(comm):
    link = CrossBatchNormalization(3, comm)
    loaded = pickle.loads(pickle.dumps(chainer.Sequential(link)))[0]
    assert loaded.comm is None
    x = batch((2, 3), "float32")[0]
    with chainer.using_config("train", False):
        assert (loaded(x).array == link(x).array).all()
    with pytest.raises(RuntimeError, match="set link.comm before training"):
        loaded(x)
    loaded.comm = comm
    assert (loaded(x).array == link(x).array).all()


def test_without_a_communicator_it_says_so(comm):
    with pytest.raises(RuntimeError, match="set link.comm"):
        CrossBatchNormalization(3, None)(np.ones((2, 3), "float32"))


OTHERS = {
    "ours": lambda comm: CrossBatchNormalization(3, comm),
    "Chainer's": lambda comm: L.BatchNormalization(3),
    "ChainerMN's": lambda comm: MultiNodeBatchNormalization(3, comm),
}


@pytest.mark.parametrize("format", ["npz", "hdf5"])
@pytest.mark.parametrize("other", OTHERS)
def test_files_load_both_ways(comm, tmp_path, other, format):
    save = getattr(chainer.serializers, f"save_{format}")
    load = getattr(chainer.serializers, f"load_{format}")
    x, gy = batch((4, 3), "float32")
    for source, target in ((other, "ours"), ("ours", other)):
        link, loaded = (
            chainer.Sequential(OTHERS[name](comm)) for name in (source, target)
        )
        link[0].gamma.array[...] = [1, 2, 3]
        run(link, x, gy)
        link[0].N = 5
        save(tmp_path / "model.npz", link)
        load(tmp_path / "model.npz", loaded)
        for name in ("avg_mean", "avg_var", "N"):
            assert np.array_equal(getattr(loaded[0], name), getattr(link[0], name))
        for name in ("gamma", "beta"):
            ours, theirs = (getattr(v[0], name).array for v in (loaded, link))
            assert (ours == theirs).all()


def test_a_model_loaded_on_one_rank_reaches_all(comm, tmp_path):
    model = Bare(CrossBatchNormalization(3, comm))
    if comm.rank == 0:
        trained = Bare(L.BatchNormalization(3))
        trained.bn.gamma.array[...] = [1, 2, 3]
        trained.bn.avg_mean[...] = [4, 5, 6]
        trained.bn.avg_var[...] = [7, 8, 9]
        trained.bn.N = 10
        chainer.serializers.save_npz(tmp_path / "model.npz", trained)
        chainer.serializers.load_npz(tmp_path / "model.npz", model)
    optimizer = chainermn.create_multi_node_optimizer(chainer.optimizers.SGD(), comm)
    prime(optimizer.setup(model), comm)
    assert model.bn.gamma.array.tolist() == [1, 2, 3]
    assert model.bn.avg_mean.tolist() == [4, 5, 6]
    assert model.bn.avg_var.tolist() == [7, 8, 9]
    assert model.bn.N == 10


# Unusual graphs; an order that differs is in tests/test_mpi_order.py


def test_a_link_twice_in_one_pass(comm):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 4), "float64")
    mine = part_of(comm, counts)
    models = [
        CrossBatchNormalization(3, comm, dtype="float64"),
        L.BatchNormalization(3, dtype="float64"),
    ]
    results = []
    for link, part in zip(models, (mine, slice(None))):
        link.gamma.array[...], link.beta.array[...] = parameters((3,), "float64")
        y, gx = run(chainer.Sequential(link, F.sin, link), x[part], gy[part])
        results.append((y, gx, link.gamma.grad, link.avg_mean, link.avg_var))
    (y, gx, ggamma, *averages), whole = results
    assert error(y, whole[0][mine]) < 1e-11
    assert error(gx, whole[1][mine]) < 1e-11
    assert error(comm.allreduce(ggamma), whole[2]) < 1e-11
    for mean, expected in zip(averages, whole[3:]):
        assert error(mean, expected) < 1e-11


def test_recomputed_by_forget(comm):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 4), "float64")
    mine = part_of(comm, counts)
    results = []
    for forget in (False, True):
        link = CrossBatchNormalization(3, comm, dtype="float64")
        variable = chainer.Variable(x[mine])
        if forget:
            y = F.forget(lambda v, link=link: F.tanh(link(v)), variable)
        else:
            y = F.tanh(link(variable))
        y.grad = gy[mine]
        link.cleargrads()
        y.backward()
        results.append(
            (y.array, variable.grad, link.gamma.grad, link.avg_mean, link.avg_var)
        )
    for plain, forgotten in zip(*results):
        assert error(forgotten, plain) < 1e-14


def test_a_part_of_the_graph_back_propagated_on_all_ranks(comm):
    links = [CrossBatchNormalization(3, comm) for _ in range(2)]
    x, gy = batch((4, 3), "float32", seed=comm.rank)
    for _ in range(3):
        links[0](x)  # no backward
        y, gx = run(links[1], x, gy)
    links[0](links[1](x))


# One collective a direction


class Counting(MPI.Intracomm):
    """Notes what each collective sends, in float64."""

    def __new__(cls, comm):
        counting = super().__new__(cls, comm)
        counting.sent = []
        return counting

    def Iallreduce(self, sendbuf, recvbuf, *args):
        array = sendbuf if isinstance(sendbuf, np.ndarray) else sendbuf[0]
        assert array.dtype == np.float64
        self.sent.append(array.size)
        return super().Iallreduce(sendbuf, recvbuf, *args)


def _forbidden(name):
    def collective(self, *args, **kwargs):
        raise AssertionError(f"{name} sends something as well")

    return collective


OTHER_COLLECTIVES = [
    *("Allreduce", "allreduce", "Reduce", "reduce", "Bcast", "bcast", "Gather"),
    *("gather", "Allgather", "allgather", "Iallgather", "Alltoall", "alltoall"),
    *("Scatter", "scatter", "Barrier", "barrier", "Ibarrier", "Ibcast", "Ireduce"),
    *("Scan", "Exscan", "Reduce_scatter", "Reduce_scatter_block", "Igather"),
    *("send", "Send", "isend", "Isend", "recv", "Recv", "irecv", "Irecv"),
]


def count_shared(monkeypatch):
    """Note the turns in shared memory, and forbid the collectives of MPI."""
    sent = []
    publish = Slots.publish

    def counted(self, turn, token):
        sent.append(turn)
        publish(self, turn, token)

    monkeypatch.setattr(Slots, "publish", counted)
    for name in ("Iallreduce", *OTHER_COLLECTIVES):
        monkeypatch.setattr(Counting, name, _forbidden(name), raising=False)
    return sent


@pytest.mark.parametrize("c", [1, 64, 512])
def test_one_turn_in_shared_memory_a_direction(comm, c, monkeypatch):
    if comm.size == 1 or os.environ.get("CHAINER_CROSSBN_COLLECTIVE") == "mpi":
        return
    counting = Counting(comm.mpi_comm.Dup())
    link = CrossBatchNormalization(c, chainermn.create_communicator("naive", counting))
    x, gy = batch((2, c), "float32", seed=comm.rank)
    for _ in range(2):
        run(link, x, gy)
    sent = count_shared(monkeypatch)
    for i in range(3):
        y = link(chainer.Variable(x))
        assert len(sent) == 2 * i + 1
        y.grad = gy
        y.backward()
        assert len(sent) == 2 * i + 2
    with chainer.using_config("train", False):
        link(x)
    assert len(sent) == 6


@pytest.mark.parametrize("c", [1, 64, 512])
def test_one_collective_a_direction(comm, c, monkeypatch):
    if comm.size == 1:
        return
    monkeypatch.setenv("CHAINER_CROSSBN_COLLECTIVE", "mpi")
    counting = Counting(comm.mpi_comm.Dup())
    link = CrossBatchNormalization(c, chainermn.create_communicator("naive", counting))
    x, gy = batch((2, c), "float32", seed=comm.rank)
    for _ in range(2):
        run(link, x, gy)
    for name in OTHER_COLLECTIVES:
        monkeypatch.setattr(Counting, name, _forbidden(name), raising=False)
    for _ in range(3):
        counting.sent.clear()
        y = link(chainer.Variable(x))
        assert counting.sent == [2 * c + 3]
        y.grad = gy
        y.backward()
        assert counting.sent == [2 * c + 3, 2 * c + 2]
    with chainer.using_config("train", False):
        link(x)
    assert len(counting.sent) == 2


# Inference, running statistics, other communicators


def test_inference_is_that_of_chainer(comm):
    counts = unequal(comm)
    x, _ = batch((sum(counts), 3, 4), "float32")
    link, stock = CrossBatchNormalization(3, comm), L.BatchNormalization(3)
    link(x[part_of(comm, counts)])
    stock.copyparams(link)
    if comm.rank == 0:  # no other rank takes part, so nothing may be communicated
        with chainer.using_config("train", False):
            assert (link(x).array == stock(x).array).all()


def test_running_statistics_are_equal_on_all_ranks(comm):
    link = CrossBatchNormalization(3, comm)
    for seed in range(3):
        counts = unequal(comm)
        link(batch((sum(counts), 3, 4), "float32", seed=seed)[0][part_of(comm, counts)])
    for value in (link.avg_mean, link.avg_var):
        assert len(set(comm.allreduce_obj([value.tobytes()]))) == 1


def test_finetuning_is_that_of_chainer(comm):
    links = CrossBatchNormalization(3, comm), L.BatchNormalization(3)
    counts = unequal(comm)
    for seed in range(3):
        x, _ = batch((sum(counts), 3, 4), "float32", seed=seed)
        for link, part in zip(links, (part_of(comm, counts), slice(None))):
            link(x[part], finetune=True)
    for name in ("avg_mean", "avg_var", "N"):
        assert error(getattr(links[0], name), getattr(links[1], name)) < 1e-5


def only_allreduce(comm):
    class Plain:
        size, rank, allreduce = comm.size, comm.rank, staticmethod(comm.allreduce)

    return Plain()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["unequal", "an empty rank"])
def test_a_communicator_with_only_allreduce(comm, kind, dtype):
    counts = list(unequal(comm))
    if kind == "an empty rank" and comm.size > 1:
        counts[0] = 0
    x, gy = batch((sum(counts), 3, 4), dtype)
    check(only_allreduce(comm), x, gy, counts)


@pytest.mark.parametrize("value", [0, 0.1, -3, 1000])
def test_constant_input_with_allreduce_alone(comm, value):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 4), "float32")
    x[...] = value
    check(only_allreduce(comm), x, gy, counts)


@pytest.mark.parametrize("n_rounds", [0, 3])
def test_another_order_is_an_error_with_allreduce_alone(comm, n_rounds):
    plain = only_allreduce(comm)
    links = [CrossBatchNormalization(3, plain) for _ in range(2)]
    x = batch((2, 3), "float32", seed=comm.rank)[0]
    for _ in range(n_rounds):
        links[1](links[0](x))
    if comm.size == 1:
        return
    if comm.rank == 0:
        links.reverse()
    with pytest.raises(CollectiveError, match="this one is at"):
        links[1](links[0](x))


def test_communicators_may_share_an_mpi_communicator(comm):
    comms = [chainermn.create_communicator("naive", comm.mpi_comm) for _ in range(2)]
    x = batch((2, 3), "float32", seed=comm.rank)[0]
    one = np.ones(3, "float32")
    results = set()
    # The ranks exchange messages whenever a layer is new.
    for i in range(100):
        for c in comms:
            y = cross_batch_normalization(x, one, one, c, name=f"layer {i}")
            results.add(y.array.tobytes())
    assert len(results) == 1


def test_nothing_is_warned_of(comm):
    counts = [2] * comm.size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(comm, *batch((sum(counts), 3, 4), "float32"), counts)
