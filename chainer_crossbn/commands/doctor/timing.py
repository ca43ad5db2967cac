"""How long all-reduces over the ranks take."""

import statistics
import time
from typing import NamedTuple

import chainer
import numpy
from mpi4py import MPI

from chainer_crossbn import collectives

# VGG16's widest layers send 1 + 2 * 512 numbers.
_OF_STATISTICS = (8, 512, 8200, 65536)
_OF_GRADIENTS = (1 << 20, 4 << 20, 16 << 20)
_WARM_UP = 3
_SECONDS = 0.2
_LEAST, _MOST = 3, 200


class Time(NamedTuple):
    """The time of an all-reduce: the median, of the slowest rank; if slow, the first.

    Attributes:
        size (int): Bytes of the vector.
        seconds (float): Time.
        what (str): What goes by such all-reduces.
    """

    size: int
    seconds: float
    what: str


def measure(comm, device, at):
    """Time all-reduces by this package's collectives and by a communicator.

    Args:
        comm: ChainerMN communicator of two or more ranks, which call this together.
        device (chainer.backend.Device): Where vectors are.
        at (callable): Told in words what comes next.

    Returns:
        list of Time: From 8 bytes up.
    """
    times = []
    for size in _OF_STATISTICS:
        at(f"an all-reduce of {size} bytes")
        vector = device.send(numpy.ones(size // 8))
        seconds = _time(
            comm, device, lambda v=vector: collectives.sum_over_ranks(comm, v, "doctor")
        )
        times.append(Time(size, seconds, "statistics"))
    for size in _OF_GRADIENTS:
        at(f"an all-reduce of {size} bytes")
        model = _Vector(size // 4)
        model.to_device(device)
        seconds = _time(comm, device, lambda m=model: comm.multi_node_mean_grad(m))
        times.append(Time(size, seconds, "gradients"))
    return times


class _Vector(chainer.Link):
    """One parameter with a gradient, both float32 of shape (size,)."""

    def __init__(self, size):
        super().__init__()
        with self.init_scope():
            self.w = chainer.Parameter(numpy.zeros(size, numpy.float32))
        self.w.grad = numpy.ones(size, numpy.float32)


def _time(comm, device, function):
    world = comm.mpi_comm
    first = world.allreduce(_once(world, device, function), MPI.MAX)
    if first > _SECONDS:
        return first  # it is slow, and no more is to be known
    once = max(_once(world, device, function) for _ in range(_WARM_UP))
    # All ranks have to agree on it.
    repeats = min(max(_LEAST, int(_SECONDS / world.allreduce(once, MPI.MAX))), _MOST)
    times = [_once(world, device, function) for _ in range(repeats)]
    return world.allreduce(statistics.median(times), MPI.MAX)


def _once(world, device, function):
    world.Barrier()
    started = time.perf_counter()
    function()
    if device.xp is not numpy:
        device.xp.cuda.get_current_stream().synchronize()
    return time.perf_counter() - started
