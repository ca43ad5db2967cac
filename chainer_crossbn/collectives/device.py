"""All-reduces of vectors in device memory.

:class:`DeviceChannel` only queues them, and the host does not wait. It sums the moments
of mini-batches as ``[n, n * mean, M2 + n * mean**2]``. :class:`StagedChannel` reduces
in host memory.
"""

import ctypes
import time
from collections.abc import Callable

import numpy
from chainer.backends import cuda

from chainer_crossbn.collectives.host import HostChannel
from chainer_crossbn.collectives.order import OrderedChannel
from chainer_crossbn.kernels.cuda.launching import copy_to_device, copy_to_host, pinned
from chainer_crossbn.kernels.normalization import packing

_MESSAGE_TAG = 0x4343
_SECONDS_FOR_DEVICE = 0.2  # far less than other ranks wait for this one's place


class DeviceChannel(OrderedChannel):
    """All-reduces on the current stream, checked for order.

    The device compares the numbers that the vectors carry, and writes the number of the
    first mismatch to a flag. The host reads the flag once per iteration, when the first
    of all layers comes again. By then the copy of the flag that was started an
    iteration before has long arrived. If that layer does not come again, as when its
    model is no longer used, the host reads the flag after twice as many all-reduces as
    there are layers.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
        all_reduce (callable): Takes two float64 arrays on the device, and writes the
            sum over the ranks of the first to the second, on the current stream.
    """

    def __init__(self, mpi_comm, all_reduce: Callable):
        super().__init__(mpi_comm, _MESSAGE_TAG)
        self._all_reduce = all_reduce
        self._flag = cuda.cupy.zeros((1,), numpy.int64)
        self._flag_on_host = pinned(1, numpy.int64)
        self._flag_on_host[0] = 0
        self._copied = cuda.cupy.cuda.Event(disable_timing=True)
        self._copy_started = False
        self._last_check = 0  # sequence number

    def sum(self, vector, layer: str):
        """Return the sum of the ranks' vectors."""
        number = self._begin(layer, vector.size)
        received = self._reduce(packing.pack_vector(number, vector))
        total = packing.unpack_vector(received, self._n_ranks, number, self._flag)
        self._end()
        return total

    def merge(self, count: int, mean, m2, layer: str):
        """Return count, mean and M2 of the ranks' mini-batches together.

        The count is an array of shape ().
        """
        number = self._begin(layer, 2 * mean.size + 1)
        received = self._reduce(packing.pack_moments(number, count, mean, m2))
        merged = packing.unpack_moments(received, self._n_ranks, number, self._flag)
        self._end()
        return merged

    def _begin(self, layer, size):
        number = super()._begin(layer, size)
        self._messages.receive()
        if self._others_failed():
            self._fail_at_first_mismatch()
        overdue = self._sequence - self._last_check >= 2 * len(self._numbers)
        if number == 1 or overdue:
            self._last_check = self._sequence
            self._check_flag()
        return number

    def _reduce(self, sent):
        received = cuda.cupy.empty_like(sent)
        self._all_reduce(sent, received)
        return received

    def _check_flag(self):
        """Fail if the flag was set when this was last called, and copy it again."""
        if self._copy_started:
            # Poll, as a device waits forever for a rank that does not come.
            self._wait(
                lambda: self._copied.done or self._others_failed(), lambda: False
            )
            if self._flag_on_host[0] or self._others_failed():
                self._fail_at_first_mismatch()
        stream = cuda.cupy.cuda.get_current_stream()
        target = ctypes.c_void_p(self._flag_on_host.ctypes.data)
        self._flag.data.copy_to_host_async(target, self._flag.nbytes, stream)
        self._copied.record(stream)
        self._copy_started = True

    def _fail_at_first_mismatch(self):
        """Fail at the place of the first mismatch, or here if the device has none yet.

        Another rank may have read its flag earlier than this one.
        """
        deadline = time.monotonic() + _SECONDS_FOR_DEVICE
        while self._copy_started and time.monotonic() < deadline:
            if self._copied.done:
                for (layer, size), number in self._numbers.items():
                    if number == self._flag_on_host[0]:
                        self._place = self._place._replace(layer=layer, size=size)
                break
            time.sleep(0.001)
        self._fail()


class StagedChannel:
    """All-reduces of vectors that are copied to pinned host memory and back.

    Args:
        channel (HostChannel): Reduces them.
    """

    def __init__(self, channel: HostChannel):
        self._channel = channel
        self._buffers: dict[tuple[str, int], numpy.ndarray] = {}

    def sum(self, vector, layer: str):
        """Return the sum of the ranks' vectors."""
        return self._to_device(self._channel.sum(self._to_host(vector), layer))

    def merge(self, count: int, mean, m2, layer: str):
        """Return count, mean and M2 of the ranks' mini-batches together."""
        staged = self._to_host(cuda.cupy.concatenate([mean, m2]))
        mean, m2 = staged.reshape(2, -1)
        count, mean, m2 = self._channel.merge(count, mean, m2, layer)
        mean, m2 = self._to_device(numpy.concatenate([mean, m2])).reshape(2, -1)
        return count, mean, m2

    def _to_host(self, vector):
        staged = self._buffer("to the host", vector.size)
        copy_to_host(vector, staged)
        return staged

    def _to_device(self, vector):
        # The next copy to the host waits for this one, so the buffer can be reused.
        staged = self._buffer("to the device", vector.size)
        staged[:] = vector
        on_device = cuda.cupy.empty(vector.size)
        copy_to_device(staged, on_device)
        return on_device

    def _buffer(self, direction, size):
        key = direction, size
        if key not in self._buffers:
            self._buffers[key] = pinned(size)
        return self._buffers[key]


def nccl_all_reduce(mpi_comm) -> Callable:
    """Return an all-reduce by NCCL; all ranks call this together.

    Args:
        mpi_comm (mpi4py.MPI.Comm): Ranks, each with a device of its own.
    """
    nccl = cuda.cupy.cuda.nccl
    unique_id = nccl.get_unique_id() if mpi_comm.rank == 0 else None
    unique_id = mpi_comm.bcast(unique_id)
    communicator = nccl.NcclCommunicator(mpi_comm.size, unique_id, mpi_comm.rank)

    def all_reduce(sent, received):
        communicator.allReduce(
            sent.data.ptr,
            received.data.ptr,
            sent.size,
            nccl.NCCL_FLOAT64,
            nccl.NCCL_SUM,
            cuda.cupy.cuda.get_current_stream().ptr,
        )

    return all_reduce


def mpi_all_reduce(mpi_comm) -> Callable:
    """Return an all-reduce by an MPI library that takes addresses on the device.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
    """

    def all_reduce(sent, received):
        cuda.cupy.cuda.get_current_stream().synchronize()
        mpi_comm.Allreduce(sent, received)

    return all_reduce
