"""The communicator for host memory, compared with NumPy."""

import os

import chainer
import numpy as np
import pytest

from chainer_crossbn import CollectiveError
from chainer_crossbn.communicators import HostCommunicator, create


@pytest.fixture(scope="module")
def host(comm):
    return create("host", comm.mpi_comm)


def gradient(shape, dtype, rank, index):
    state = np.random.RandomState([rank, index])
    return np.asarray(state.randn(*shape)).astype(dtype)


# Blocks have a million float32: the second gradient is split, small ones are packed.
SHAPES = [(3,), (1300, 1000), (), (700, 1000), (700, 1000), (2, 3, 4), (0,), (1,)]


def model_of(dtypes, rank):
    model = chainer.Chain()
    with model.init_scope():
        for i, (shape, dtype) in enumerate(zip(SHAPES, dtypes)):
            parameter = chainer.Parameter(np.zeros(shape, dtype))
            parameter.grad = gradient(shape, dtype, rank, i)
            setattr(model, f"p{i}", parameter)
    return model


@pytest.mark.parametrize("dtypes", ["ffffffff", "dfdfdfdf", "effdffff"])
def test_gradients_are_averaged(host, dtypes):
    model = model_of(dtypes, host.rank)
    host.multi_node_mean_grad(model)
    for i, (shape, dtype) in enumerate(zip(SHAPES, dtypes)):
        all_ranks = [gradient(shape, dtype, rank, i) for rank in range(host.size)]
        actual = getattr(model, f"p{i}").grad
        assert actual.dtype == dtype and actual.shape == shape
        limit = {"e": 2e-3, "f": 1e-6, "d": 1e-15}[dtype]
        expected = np.mean(np.array(all_ranks, np.float64), axis=0)
        assert np.abs(actual - expected).max(initial=0) < limit


@pytest.mark.parametrize("shape", [(30, 20), (1300, 1000)])
def test_gradients_need_not_be_contiguous(host, shape):
    model = chainer.Chain()
    with model.init_scope():
        model.p = chainer.Parameter(np.zeros(shape, "f"))
    model.p.grad = gradient(shape[::-1], "f", host.rank, 0).T
    host.multi_node_mean_grad(model)
    expected = sum(gradient(shape[::-1], "f", r, 0).T for r in range(host.size))
    assert np.abs(model.p.grad - expected / host.size).max() < 1e-6


@pytest.mark.parametrize("zero_fill", [False, True])
def test_a_parameter_without_a_gradient(host, zero_fill):
    model = model_of("ffffffff", host.rank)
    if host.rank == 0 or not zero_fill:
        model.p0.grad = None
    host.multi_node_mean_grad(model, zero_fill)
    if zero_fill:
        expected = sum(gradient((3,), "f", r, 0) for r in range(1, host.size))
        assert np.abs(model.p0.grad - expected / host.size).max() < 1e-6
    else:
        assert model.p0.grad is None


def test_all_ranks_get_the_same_bits(host):
    model = model_of("ffffffff", host.rank)
    host.multi_node_mean_grad(model)
    bits = [p.grad.tobytes() for _, p in sorted(model.namedparams())]
    assert all(b == bits for b in host.mpi_comm.allgather(bits))


def test_a_split_communicator_is_one_too(host):
    part = host.split(host.rank % 2, 0)
    assert isinstance(part, HostCommunicator)
    model = model_of("ffffffff", host.rank)
    part.multi_node_mean_grad(model)
    ranks = range(host.rank % 2, host.size, 2)
    expected = sum(gradient((3,), "f", r, 0) for r in ranks) / len(ranks)
    assert np.abs(model.p0.grad - expected).max() < 1e-6


def test_ranks_with_different_gradients_get_an_error(host):
    if host.size == 1 or os.environ.get("CHAINER_CROSSBN_COLLECTIVE") == "mpi":
        return
    model = model_of("ffffffff", host.rank)
    if host.rank == 0:
        model.p1.grad = None
    with pytest.raises(CollectiveError, match="different gradients"):
        create("host", host.mpi_comm).multi_node_mean_grad(model)
