"""CrossBatchNormalization over the ranks against the whole batch in float64."""

import copy
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest
from reference import batch_normalization, error

from chainer_crossbn import (
    CollectiveError,
    CrossBatchNormalization,
    cross_batch_normalization,
)

TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-11}
SHAPES = [((4,), None), ((4, 5), None), ((3, 5, 4), None), ((5, 6, 3, 2, 2), None)]
AXES = [((3, 4, 5), (0,)), ((4, 5, 3), (0, 1)), ((3, 2, 4, 5), (0, 2))]


def shares(comm, kind):
    """Return how many images each rank has."""
    if kind == "equal":
        return [4] * comm.size
    return [(8, 4, 1, 3)[rank] for rank in range(comm.size)]


def split(comm, counts):
    ends = np.cumsum([0, *counts])
    return slice(ends[comm.rank], ends[comm.rank + 1])


def case(comm, tail, counts, dtype, channels, seed=0):
    """Return one whole batch, equal on all ranks, parameters and this rank's part."""
    state = np.random.RandomState(seed)
    shape = (sum(counts), *tail)
    x = (state.randn(*shape) * 2 + 3).astype(dtype)
    gy = state.randn(*shape).astype(dtype)
    parameter_dtype = "float32" if dtype == "float16" else dtype
    gamma = state.uniform(0.5, 1.5, channels).astype(parameter_dtype)
    beta = state.randn(*gamma.shape).astype(parameter_dtype)
    return x, gy, gamma, beta, split(comm, counts)


def run(link, x, gy):
    x = chainer.Variable(x)
    y = link(x)
    y.grad = gy
    link.cleargrads()
    y.backward()
    return y.array, x.grad


def check(comm, counts, tail, axis, channels, dtype):
    x, gy, gamma, beta, mine = case(comm, tail, counts, dtype, channels)
    link = CrossBatchNormalization(channels, comm, dtype=gamma.dtype, axis=axis)
    link.gamma.array[...] = gamma
    link.beta.array[...] = beta
    y, gx = run(link, x[mine], gy[mine])
    whole = batch_normalization(x, gy, gamma, beta, axis=axis)
    tolerance = TOLERANCE[dtype]
    assert y.dtype == gx.dtype == np.dtype(dtype)
    assert error(y, whole["y"][mine]) < tolerance
    assert error(gx, whole["gx"][mine]) < tolerance
    assert error(comm.allreduce(link.gamma.grad), whole["ggamma"]) < tolerance
    assert error(comm.allreduce(link.beta.grad), whole["gbeta"]) < tolerance
    n = whole["n"]
    assert error(link.avg_mean, 0.1 * whole["mean"]) < tolerance
    unbiased = whole["var"] * n / (n - 1)
    assert error(link.avg_var, 0.9 + 0.1 * unbiased) < tolerance


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("tail,axis", SHAPES)
@pytest.mark.parametrize("kind", ["equal", "unequal"])
def test_equals_the_whole_batch(comm, kind, tail, axis, dtype):
    check(comm, shares(comm, kind), tail, axis, tail[:1], dtype)


@pytest.mark.parametrize("shape,axis", AXES)
def test_equals_the_whole_batch_over_any_axes(comm, shape, axis):
    channels = tuple(d for i, d in enumerate(shape) if i not in axis)
    check(comm, shares(comm, "unequal"), shape[1:], axis, channels, "float64")


def test_a_rank_may_have_no_image(comm):
    counts = [0] + [3] * (comm.size - 1) if comm.size > 1 else [3]
    check(comm, counts, (5, 2, 2), None, (5,), "float32")


def test_inputs_need_not_be_contiguous(comm):
    x, gy, gamma, beta, mine = case(comm, (4, 6, 6), [2] * comm.size, "float64", (4,))
    whole = batch_normalization(x[..., ::2], gy[..., ::2], gamma, beta)
    link = CrossBatchNormalization(4, comm, dtype="float64")
    link.gamma.array[...] = gamma
    link.beta.array[...] = beta
    for order in (lambda a: a, np.asfortranarray):
        y, gx = run(link, order(x[mine])[..., ::2], order(gy[mine])[..., ::2])
        assert error(y, whole["y"][mine]) < 1e-11
        assert error(gx, whole["gx"][mine]) < 1e-11


def test_a_large_mean_does_not_hide_the_variance(comm):
    x, gy, gamma, beta, mine = case(comm, (3, 8, 8), [4] * comm.size, "float64", (3,))
    x = (1000 + (x - 3) * 0.05).astype("float32")
    gy = gy.astype("float32")
    link = CrossBatchNormalization(3, comm)
    y, gx = run(link, x[mine], gy[mine])
    whole = batch_normalization(x, gy, np.ones(3), np.zeros(3))
    assert error(y, whole["y"][mine]) < 1e-5
    assert error(gx, whole["gx"][mine]) < 1e-5


def test_test_mode_is_that_of_chainer(comm):
    x, _, _, _, mine = case(comm, (3, 4, 4), [3] * comm.size, "float32", (3,))
    link = CrossBatchNormalization(3, comm)
    link(x[mine])
    stock = L.BatchNormalization(3)
    stock.copyparams(link)
    if comm.rank == 0:  # no other rank takes part, so nothing may be communicated
        with chainer.using_config("train", False):
            assert (link(x).array == stock(x).array).all()


def test_running_statistics_are_equal_on_all_ranks(comm):
    link = CrossBatchNormalization(3, comm)
    for seed in range(3):
        x, _, _, _, mine = case(
            comm, (3, 4), shares(comm, "unequal"), "float32", (3,), seed
        )
        link(x[mine])
    assert len(set(comm.allreduce_obj([link.avg_mean.tobytes()]))) == 1
    assert len(set(comm.allreduce_obj([link.avg_var.tobytes()]))) == 1


def test_one_rank_equals_chainer(comm):
    alone = comm.split(comm.rank, 0)
    x, gy, _, _, _ = case(alone, (3, 4, 4), [3], "float64", (3,))
    ours = CrossBatchNormalization(3, alone, dtype="float64")
    stock = L.BatchNormalization(3, dtype="float64")
    for finetune in (False, True, True):
        assert (
            error(ours(x, finetune=finetune).array, stock(x, finetune=finetune).array)
            < 1e-13
        )
    for a, b in zip(run(ours, x, gy), run(stock, x, gy)):
        assert error(a, b) < 1e-13
    names = {}
    for link in (ours, stock):
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(link)
        names[link] = serializer.target
    assert list(names[ours]) == list(names[stock])
    for name, value in names[stock].items():
        assert error(names[ours][name], value) < 1e-13


def test_second_derivatives_equal_those_of_the_whole_batch(comm):
    counts = shares(comm, "unequal")
    x, gy, gamma, beta, mine = case(comm, (3, 4), counts, "float64", (3,))

    def penalty(normalize, x, gy):
        x, scale = chainer.Variable(x), chainer.Variable(gamma)
        y = normalize(x, scale)
        gx, ggamma = chainer.grad(
            [F.sum(y * gy)], [x, scale], enable_double_backprop=True
        )
        value = F.sum(F.sin(gx) * y) + F.sum(F.cos(gx))
        value.backward()
        return gx.array, ggamma.array, x.grad, scale.grad

    ours = penalty(
        lambda x, g: cross_batch_normalization(x, g, beta, comm), x[mine], gy[mine]
    )
    whole = penalty(lambda x, g: F.batch_normalization(x, g, beta), x, gy)
    assert error(ours[0], whole[0][mine]) < 1e-9
    assert error(comm.allreduce(ours[1]), whole[1]) < 1e-9
    assert error(ours[2], whole[2][mine]) < 1e-9
    assert error(comm.allreduce(ours[3]), whole[3]) < 1e-9


def test_a_communicator_with_only_allreduce_gives_the_same(comm):
    x, gy, _, _, mine = case(comm, (3, 4), shares(comm, "unequal"), "float32", (3,))
    results = [
        run(CrossBatchNormalization(3, c), x[mine], gy[mine])
        for c in (comm, only_allreduce(comm))
    ]
    for a, b in zip(*results):
        assert (a == b).all()


def test_copies_share_the_communicator_and_pickles_leave_it_out(comm):
    link = CrossBatchNormalization(3, comm)
    chain = chainer.Sequential(link)
    for copied in (
        link.copy(),
        copy.deepcopy(link),
        link.repeat(2)[1],
        copy.deepcopy(chain)[0],
        chain.copy(mode="copy")[0],
    ):
        assert copied.comm is comm
        assert copied.label == link.label
    loaded = pickle.loads(pickle.dumps(link))
    assert loaded.comm is None
    with pytest.raises(RuntimeError, match="set link.comm"):
        loaded(np.zeros((2, 3), "float32"))
    loaded.comm = comm
    loaded(np.zeros((2, 3), "float32"))


def test_a_copy_on_one_rank_disturbs_no_other(comm):
    link = CrossBatchNormalization(3, comm)
    if comm.rank == 0:
        copy.deepcopy(link)
        link.copy()
    CrossBatchNormalization(3, comm)(np.ones((2, 3), "float32"))


def test_without_a_communicator_it_says_so(comm):
    with pytest.raises(RuntimeError, match="set link.comm"):
        CrossBatchNormalization(3, None)(np.ones((2, 3), "float32"))


def test_communicators_may_share_an_mpi_communicator(comm):
    comms = [chainermn.create_communicator("naive") for _ in range(2)]
    x = np.random.RandomState(comm.rank).randn(2, 3).astype("float32")
    one = np.ones(3, "float32")
    results = set()
    # The ranks exchange messages whenever a layer is new.
    for i in range(100):
        for c in comms:
            y = cross_batch_normalization(x, one, one, c, name=f"layer {i}")
            results.add(y.array.tobytes())
    assert len(results) == 1


def test_all_ranks_empty_is_an_error(comm):
    with pytest.raises(ValueError, match="empty"):
        CrossBatchNormalization(3, comm)(np.zeros((0, 3), "float32"))


def only_allreduce(comm):
    class Plain:
        size, rank, allreduce = comm.size, comm.rank, staticmethod(comm.allreduce)

    return Plain()


@pytest.mark.parametrize("n_rounds", [0, 3])
def test_another_order_is_an_error_with_allreduce_alone(comm, n_rounds):
    plain = only_allreduce(comm)
    links = [CrossBatchNormalization(3, plain) for _ in range(2)]
    x = np.random.RandomState(comm.rank).randn(2, 3).astype("float32")
    for _ in range(n_rounds):
        links[1](links[0](x))
    if comm.size == 1:
        return
    with pytest.raises(CollectiveError, match="this one is at"):
        links[0 if comm.rank else 1](x)


def test_another_order_on_one_rank_is_an_error_everywhere(comm):
    links = [CrossBatchNormalization(3, comm) for _ in range(2)]
    x = np.random.RandomState(comm.rank).randn(2, 3).astype("float32")
    for _ in range(3):
        links[1](links[0](x))
    if comm.size == 1:
        return
    first, second = links if comm.rank else links[::-1]
    with pytest.raises(CollectiveError, match="rank 0 is at .*rank 1 is at"):
        second(first(x))
