"""Errors of cross-GPU batch normalization, and times of all-reduces."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import chainer
import numpy
from chainer.backend import Device
from mpi4py import MPI

from chainer_crossbn import collectives
from chainer_crossbn.links import CrossBatchNormalization

SMALL, LARGE = 8, 16 << 20  # bytes
_CHANNELS = 16
_WARM_UP = 3
_SECONDS = 0.3
_LEAST_REPEATS, _MOST_REPEATS = 5, 200


def normalization_error(comm: Any, device: Device) -> float:
    """Compare the link with float64 statistics of the global batch.

    Args:
        comm: ChainerMN communicator; all ranks call this together.
        device (chainer.backend.Device): Device of the rank.

    Returns:
        float: Largest error of the output and of the input's gradient on any rank,
        relative to their largest value.
    """
    # Data and size of the mini-batch differ between ranks.
    random = numpy.random.RandomState(comm.rank)
    shape = 2, 2 + comm.rank % 3, _CHANNELS, 4, 4
    x, gy = random.normal(1.0, 2.0, shape).astype(numpy.float32)
    link = CrossBatchNormalization(_CHANNELS, comm)
    link.to_device(device)
    variable = chainer.Variable(device.send(x))
    y = link(variable)
    y.grad = device.send(gy)
    y.backward()

    all_x, all_gy = (
        numpy.concatenate(comm.mpi_comm.allgather(v)).astype(numpy.float64)
        for v in (x, gy)
    )
    mean = _mean(all_x)
    deviation = numpy.sqrt(_mean((all_x - mean) ** 2) + link.eps)
    x_hat = (x - mean) / deviation
    mean_gy_x_hat = _mean(all_gy * (all_x - mean) / deviation)
    gx = (gy - _mean(all_gy) - x_hat * mean_gy_x_hat) / deviation
    host = chainer.get_device("@numpy")
    errors = [
        numpy.abs(host.send(actual) - expected).max() / numpy.abs(expected).max()
        for actual, expected in ((y.array, x_hat), (variable.grad, gx))
    ]
    # NumPy's maximum of a NaN is NaN, on whichever rank it is.
    return float(numpy.max(comm.mpi_comm.allgather(numpy.max(errors))))


def _mean(v):
    return v.mean(axis=(0, 2, 3), keepdims=True)


def all_reduce_seconds(comm: Any, device: Device) -> tuple[float, float]:
    """Time all-reduces, as the median of several calls on the slowest rank.

    Args:
        comm: ChainerMN communicator of two or more ranks, which call this together.
        device (chainer.backend.Device): Device of the vectors.

    Returns:
        tuple of float: Seconds for :data:`SMALL` bytes of statistics and for
        :data:`LARGE` bytes of gradients.
    """
    vector = device.send(numpy.ones(SMALL // 8))
    link = chainer.Link()
    with link.init_scope():
        link.w = chainer.Parameter(numpy.zeros(LARGE // 4, numpy.float32))
    link.w.grad = numpy.ones(LARGE // 4, numpy.float32)
    link.to_device(device)
    functions = (
        lambda: collectives.sum_over_ranks(comm, vector, "doctor"),
        lambda: comm.multi_node_mean_grad(link),
    )
    small, large = (_median_seconds(comm.mpi_comm, device, f) for f in functions)
    return small, large


def _median_seconds(world: MPI.Comm, device: Device, function: Callable) -> float:
    def measure():
        world.Barrier()
        started = time.perf_counter()
        function()
        if device.xp is not numpy:
            device.xp.cuda.get_current_stream().synchronize()
        return time.perf_counter() - started

    # The first calls compile kernels, or load compiled ones.
    estimate = min(measure() for _ in range(_WARM_UP))
    # All ranks make the same number of calls.
    estimate = world.allreduce(estimate, MPI.MAX)
    repeats = min(max(_LEAST_REPEATS, int(_SECONDS / estimate)), _MOST_REPEATS)
    median = statistics.median(measure() for _ in range(repeats))
    return world.allreduce(median, MPI.MAX)
