"""What is on GPUs: the link against the whole batch, gradients, and what waits.

Started for each way of reducing vectors, on GPUs or on what stands in for them.
"""

import chainer
import numpy as np
import pytest
from chainer.backends import cuda
from exactness_cases import (
    DTYPES,
    SHAPES,
    VIEWS,
    batch,
    check,
    part_of,
    run,
    to_host,
    unequal,
)
from reference import batch_normalization, error

from chainer_crossbn import CrossBatchNormalization, communicators
from chainer_crossbn.collectives import choice

STAND_IN = hasattr(cuda.cupy, "record")
WAY = choice.requested()


@pytest.fixture(scope="module", autouse=True)
def device(comm):
    n_devices = cuda.cupy.cuda.runtime.getDeviceCount()
    device = chainer.get_device(f"@cupy:{comm.rank % n_devices}")
    device.use()
    return device


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(comm, device, dtype):
    counts = unequal(comm)
    check(comm, *batch((sum(counts), 5, 6), dtype), counts, device=device)


@pytest.mark.parametrize("tail,axis", SHAPES)
def test_unequal_local_batches(comm, device, tail, axis):
    counts = unequal(comm)
    x, gy = batch((sum(counts), *tail), "float32")
    check(comm, x, gy, counts, axis, device=device)


@pytest.mark.parametrize("parameters", ["float16", "float64"])
def test_dtypes_of_parameters(comm, device, parameters):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 5, 3), "float16")
    check(comm, x, gy, counts, dtype=parameters, device=device)


@pytest.mark.parametrize("view", VIEWS)
def test_arrays_need_not_be_contiguous(comm, device, view):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 4, 3, 6), "float32")
    change = VIEWS[view]
    for pair in ((change(x), change(gy)), (change(x), gy), (x, change(gy))):
        check(comm, *pair, counts, device=device)


@pytest.mark.parametrize("empty", ["first", "last", "all but the last"])
def test_a_rank_without_images(comm, device, empty):
    counts = [3] * comm.size
    if empty == "all but the last":
        counts[:-1] = [0] * (comm.size - 1)
    elif comm.size > 1:
        counts[0 if empty == "first" else -1] = 0
    x, gy = batch((sum(counts), 5, 2, 2), "float32")
    check(comm, x, gy, counts, device=device)
    link = CrossBatchNormalization(5, comm)
    link.to_device(device)
    mine = part_of(comm, counts)
    run(link, x[mine], gy[mine])
    kept = [to_host(v).tobytes() for v in (link.avg_mean, link.avg_var)]
    assert comm.mpi_comm.allgather(kept) == [kept] * comm.size


def test_all_ranks_empty(comm, device):
    link = CrossBatchNormalization(3, comm)
    link.to_device(device)
    nothing = np.zeros((0, 3), "float32")
    if WAY == choice.STAGED or comm.size == 1:
        with pytest.raises(ValueError, match="mini-batches of all ranks are empty"):
            run(link, nothing, nothing)
    else:
        run(link, nothing, nothing)
        assert np.isnan(to_host(link.avg_var)).all()
    counts = unequal(comm)  # and all can go on
    check(comm, *batch((sum(counts), 3), "float32"), counts, device=device)


@pytest.mark.parametrize("mean,std", [(1000, 0.1), (1e4, 1)])
def test_a_large_mean(comm, device, mean, std):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 8, 8), "float32", mean, std)
    check(comm, x, gy, counts, device=device)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_shows_on_all_ranks_in_its_channel(comm, device, value):
    counts = unequal(comm)
    x, gy = batch((sum(counts), 3, 2, 2), "float32")
    x[-1, 1, 0, 1] = value
    mine = part_of(comm, counts)
    link = CrossBatchNormalization(3, comm)
    link.to_device(device)
    with np.errstate(invalid="ignore"):
        y, gx = run(link, x[mine], gy[mine])
    assert np.isnan(y[:, 1]).all() and np.isnan(gx[:, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all() and np.isfinite(gx[:, [0, 2]]).all()
    assert np.isfinite(to_host(link.avg_var)).tolist() == [True, False, True]


def test_groups_of_ranks(comm, device):
    group = comm.split(comm.rank % 2, comm.rank)
    x, gy = batch((4 * comm.size, 3, 2), "float32", seed=comm.rank % 2)
    counts = [4] * group.size
    n = sum(counts)
    check(group, x[:n], gy[:n], counts, device=device)


@pytest.mark.parametrize("size", [1, 2])
def test_groups_of_virtual_ranks(comm, device, size):
    own = comm.split(comm.rank, 0)
    link = CrossBatchNormalization(3, own, virtual_ranks=4, virtual_group_size=size)
    link.to_device(device)
    x, gy = batch((13, 3, 2, 3), "float32")
    y, gx = run(link, x, gy)
    link.to_device("@numpy")
    ends = np.cumsum([len(v) for v in np.array_split(x, 4)])[size - 1 :: size]
    groups = [
        batch_normalization(*parts, np.ones(3), np.zeros(3))
        for parts in zip(np.split(x, ends[:-1]), np.split(gy, ends[:-1]))
    ]
    assert error(y, np.concatenate([g["y"] for g in groups])) < 1e-5
    assert error(gx, np.concatenate([g["gx"] for g in groups])) < 1e-5
    assert error(link.gamma.grad, sum(g["ggamma"] for g in groups)) < 1e-5
    assert error(link.beta.grad, sum(g["gbeta"] for g in groups)) < 1e-5
    assert error(link.avg_mean, [0.1 * g["mean"] for g in groups]) < 1e-5
    unbiased = [g["var"] * g["n"] / (g["n"] - 1) for g in groups]
    assert error(link.avg_var, 0.9 + 0.1 * np.array(unbiased)) < 1e-5


def test_running_statistics_serve_without_communication(comm, device):
    link = CrossBatchNormalization(3, comm)
    link.to_device(device)
    if comm.rank == 0:  # the others would be waited for
        with chainer.using_config("train", False):
            y = link(device.send(np.full((2, 3), 2, "float32"))).array
        assert abs(to_host(y) - 2).max() < 1e-4


# What waits: nothing between the first layer and the last, but for one look.


class _Layers(chainer.ChainList):
    def __init__(self, comm, number, virtual_ranks):
        super().__init__(
            *(
                CrossBatchNormalization(4, comm, virtual_ranks=virtual_ranks)
                for _ in range(number)
            )
        )

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return x


def _records_of_an_iteration(comm, device, number=5, virtual_ranks=1):
    model = _Layers(comm, number, virtual_ranks)
    model.to_device(device)
    x, gy = (device.send(v) for v in batch((3, 4, 2), "float32", seed=comm.rank))
    for _ in range(4):
        cuda.cupy.record.clear()
        y = model(chainer.Variable(x))
        y.grad = gy
        y.backward()
        model.cleargrads()
    return [kind for kind, _ in cuda.cupy.record]


@pytest.mark.skipif(not STAND_IN, reason="only what stands in for CuPy records")
class TestWhatWaits:
    waits = {"synchronize", "to host", "to device"}

    @pytest.mark.skipif(WAY != choice.NCCL, reason="by NCCL")
    def test_by_nccl_nothing_but_one_look(self, comm, device):
        if comm.size == 1:
            return
        own = comm.split(0, comm.rank)  # whose first layer is of this model
        seen = _records_of_an_iteration(own, device)
        assert seen.count("all-reduce") == 10
        assert [kind for kind in seen if kind in self.waits] == []
        assert seen.count("copy to host") == 1  # of the flag

    @pytest.mark.skipif(WAY != choice.STAGED, reason="staged")
    def test_staged_one_copy_each_way(self, comm, device):
        if comm.size == 1:
            return
        seen = _records_of_an_iteration(comm, device)
        assert seen.count("to host") == seen.count("to device") == 10
        assert seen.count("all-reduce") == 0

    def test_one_rank_waits_for_nothing(self, comm, device):
        alone = comm.split(comm.rank, 0)
        seen = _records_of_an_iteration(alone, device)
        assert not self.waits & set(seen)
        assert seen.count("launch") > 0
        assert _records_of_an_iteration(alone, device, virtual_ranks=3) == seen


# Gradients


SHAPES_OF_GRADIENTS = [(3,), (1300, 1000), (), (2, 3, 4), (0,), (1,)]


def _gradient(shape, dtype, rank, index):
    state = np.random.RandomState([rank, index])
    return np.asarray(state.randn(*shape)).astype(dtype)


def _model_of(dtypes, rank):
    model = chainer.Chain()
    with model.init_scope():
        for i, (shape, dtype) in enumerate(zip(SHAPES_OF_GRADIENTS, dtypes)):
            parameter = chainer.Parameter(_gradient(shape, dtype, rank, i + 100))
            parameter.grad = _gradient(shape, dtype, rank, i)
            setattr(model, f"p{i}", parameter)
    return model


@pytest.mark.parametrize("dtypes", ["ffffff", "dfdfdf", "effdee"])
def test_staged_gradients_are_averaged(comm, device, dtypes):
    staged = communicators.create("staged", comm.mpi_comm)
    model = _model_of(dtypes, comm.rank)
    model.to_device(device)
    for _ in range(2):  # with buffers that are there
        for i, (shape, dtype) in enumerate(zip(SHAPES_OF_GRADIENTS, dtypes)):
            getattr(model, f"p{i}").grad = device.send(
                _gradient(shape, dtype, comm.rank, i)
            )
        staged.multi_node_mean_grad(model)
    for i, (shape, dtype) in enumerate(zip(SHAPES_OF_GRADIENTS, dtypes)):
        ranks = [_gradient(shape, dtype, rank, i) for rank in range(comm.size)]
        found = getattr(model, f"p{i}").grad
        assert isinstance(found, cuda.ndarray)
        assert found.dtype == dtype and found.shape == shape
        limit = {"e": 2e-3, "f": 1e-6, "d": 1e-15}[dtype]
        expected = np.mean(np.array(ranks, np.float64), axis=0)
        assert np.abs(to_host(found) - expected).max(initial=0) < limit


def test_staged_gradients_need_not_be_contiguous(comm, device):
    staged = communicators.create("staged", comm.mpi_comm)
    model = chainer.Chain()
    with model.init_scope():
        model.p = chainer.Parameter(np.zeros((30, 20), "f"))
    model.to_device(device)
    model.p.grad = device.send(_gradient((20, 30), "f", comm.rank, 0)).T
    staged.multi_node_mean_grad(model)
    expected = sum(_gradient((20, 30), "f", r, 0).T for r in range(comm.size))
    assert np.abs(to_host(model.p.grad) - expected / comm.size).max() < 1e-6


@pytest.mark.parametrize("zero_fill", [False, True])
def test_a_parameter_without_a_gradient(comm, device, zero_fill):
    staged = communicators.create("staged", comm.mpi_comm)
    model = _model_of("ffffff", comm.rank)
    model.to_device(device)
    if comm.rank == 0 or not zero_fill:
        model.p0.grad = None
    staged.multi_node_mean_grad(model, zero_fill)
    if zero_fill:
        ranks = range(1, comm.size)
        expected = sum((_gradient((3,), "f", r, 0) for r in ranks), np.zeros(3))
        assert np.abs(to_host(model.p0.grad) - expected / comm.size).max() < 1e-6
    else:
        assert model.p0.grad is None


def test_a_model_without_gradients(comm, device):
    staged = communicators.create("staged", comm.mpi_comm)
    model = _model_of("ffffff", comm.rank)
    model.to_device(device)
    model.cleargrads()
    staged.multi_node_mean_grad(model)
    assert all(p.grad is None for p in model.params())


def test_staged_gradients_cross_over_once_for_each_dtype(comm, device):
    if not STAND_IN:
        return
    staged = communicators.create("staged", comm.mpi_comm)
    model = _model_of("dfdfdf", comm.rank)
    model.to_device(device)
    cuda.cupy.record.clear()
    staged.multi_node_mean_grad(model)
    kinds = [kind for kind, _ in cuda.cupy.record]
    assert kinds.count("to host") == kinds.count("to device") == 2


def test_parameters_of_the_first_rank_reach_all(comm, device):
    staged = communicators.create("staged", comm.mpi_comm)
    model = _model_of("effdee", comm.rank)
    model.to_device(device)
    staged.bcast_data(model)
    for i, dtype in enumerate("effdee"):
        expected = _gradient(SHAPES_OF_GRADIENTS[i], dtype, 0, i + 100)
        found = getattr(model, f"p{i}").array
        assert isinstance(found, cuda.ndarray) and found.dtype == dtype
        assert (to_host(found) == expected).all()


def test_staged_in_host_memory_is_the_hosts(comm):
    staged = communicators.create("staged", comm.mpi_comm)
    model = _model_of("ffffff", comm.rank)
    staged.multi_node_mean_grad(model)
    expected = sum(_gradient((3,), "f", r, 0) for r in range(comm.size)) / comm.size
    assert np.abs(model.p0.grad - expected).max() < 1e-6


def test_which_way(comm):
    distinct = cuda.cupy.cuda.runtime.getDeviceCount() >= comm.size
    assert choice.choose(comm.mpi_comm) == (WAY or ("nccl" if distinct else "staged"))
