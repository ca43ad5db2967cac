"""All-reduces of vectors in device memory, for which nothing waits.

The moments of the ranks' mini-batches travel as sums,
``[n, n * mean, M2 + n * mean**2]``.
"""

import ctypes
import time
from typing import NamedTuple

import numpy
from chainer.backends import cuda

from chainer_crossbn.collectives.order import Channel
from chainer_crossbn.kernels.cuda.launching import copy_to_device, copy_to_host, pinned
from chainer_crossbn.kernels.normalization import packing

_MAIL_TAG = 0x4343
_PATIENCE_WITH_DEVICE = 0.2  # seconds; far less than others have for last words


class _Step(NamedTuple):
    layer: str
    size: int
    number: int


class DeviceChannel(Channel):
    """All-reduces on the current stream, checked for order.

    Whether the ranks were at the same layer is looked at once an iteration: when the
    first of the layers comes again, what the device found of the iteration before has
    long reached the host.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
        all_reduce (callable): Takes two float64 arrays on the device, and has the sum
            over the ranks of the first in the second, for what comes next on the
            current stream.
    """

    def __init__(self, mpi_comm, all_reduce):
        super().__init__(mpi_comm, _MAIL_TAG)
        self._all_reduce = all_reduce
        self._flag = cuda.cupy.zeros((1,), numpy.int64)
        self._seen = pinned(1, numpy.int64)
        self._seen[0] = 0
        self._event = cuda.cupy.cuda.Event(disable_timing=True)
        self._looking = False

    def sum(self, vector, layer):
        """Return the sum of the ranks' vectors."""
        step = self._begin(layer, vector.size)
        sent = packing.pack_vector(step.number, vector)
        received = self._reduce(sent)
        total = packing.unpack_vector(received, self._size, step.number, self._flag)
        self._end(step)
        return total

    def merge(self, count, mean, m2, layer):
        """Return count, mean and M2 of the ranks' mini-batches together.

        The count is an array of shape ().
        """
        step = self._begin(layer, 2 * mean.size + 1)
        sent = packing.pack_moments(step.number, count, mean, m2)
        received = self._reduce(sent)
        merged = packing.unpack_moments(received, self._size, step.number, self._flag)
        self._end(step)
        return merged

    def _begin(self, layer, size):
        step = self._next_step(layer, size)
        self._read_mail()
        if self._mail_of(self._turn):
            self._fail(self._where(step))
        if step.number == 1:
            self._look(step)
        return step

    def _make_step(self, layer, size, number):
        return _Step(layer, size, number)

    def _reduce(self, sent):
        received = cuda.cupy.empty_like(sent)
        self._all_reduce(sent, received)
        return received

    def _look(self, step):
        """Look at what the device had found when this was last called."""
        if self._looking:
            # In turns, as a device waits for ever for a rank that does not come.
            self._wait(
                lambda: self._event.done or self._mail_of(self._turn),
                self._place_of(step),
                lambda: False,
            )
            if self._seen[0] or self._mail_of(self._turn):
                self._fail(self._where(step))
        stream = cuda.cupy.cuda.get_current_stream()
        seen = ctypes.c_void_p(self._seen.ctypes.data)
        self._flag.data.copy_to_host_async(seen, self._flag.nbytes, stream)
        self._event.record(stream)
        self._looking = True

    def _where(self, step):
        """Return where this rank first was not at the layer of the others.

        Args:
            step: Where it is now, which is what there is to tell when the device, of
                which another rank may have heard earlier, does not know.
        """
        deadline = time.monotonic() + _PATIENCE_WITH_DEVICE
        while self._looking and time.monotonic() < deadline:
            if self._event.done:
                found = {s.number: s for s in self._steps.values()}
                step = found.get(int(self._seen[0]), step)
                break
            time.sleep(0.001)
        return self._place_of(step)


class StagedChannel:
    """All-reduces by way of pinned host memory.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
        channel (HostChannel): Theirs.
    """

    def __init__(self, mpi_comm, channel):
        self._mpi_comm = mpi_comm
        self._channel = channel
        self._buffers = {}

    def sum(self, vector, layer):
        """Return the sum of the ranks' vectors."""
        (staged,) = self._stage(vector)
        return self._back(self._channel.sum(self._mpi_comm, staged, layer))

    def merge(self, count, mean, m2, layer):
        """Return count, mean and M2 of the ranks' mini-batches together."""
        staged = self._stage(mean, m2)
        count, *moments = self._channel.merge(self._mpi_comm, count, *staged, layer)
        merged = self._back(numpy.concatenate(moments))
        return count, *merged.reshape(2, -1)

    def _stage(self, *vectors):
        """Copy vectors of one length to the host."""
        together = vectors[0] if len(vectors) == 1 else cuda.cupy.concatenate(vectors)
        staged = self._buffer("to the host", together.size)
        copy_to_host(together, staged)
        return staged.reshape(len(vectors), -1)

    def _back(self, staged):
        # The host writes to it again only after the next copy to the host.
        buffer = self._buffer("to the device", staged.size)
        buffer[:] = staged
        vector = cuda.cupy.empty(staged.size)
        copy_to_device(buffer, vector)
        return vector

    def _buffer(self, direction, size):
        key = direction, size
        if key not in self._buffers:
            self._buffers[key] = pinned(size)
        return self._buffers[key]


def by_nccl(mpi_comm):
    """Return an all-reduce by NCCL; the ranks call this together.

    Args:
        mpi_comm (mpi4py.MPI.Comm): Ranks with a device each.
    """
    nccl = cuda.cupy.cuda.nccl
    unique_id = nccl.get_unique_id() if mpi_comm.rank == 0 else None
    unique_id = mpi_comm.bcast(unique_id)
    communicator = nccl.NcclCommunicator(mpi_comm.size, unique_id, mpi_comm.rank)

    def all_reduce(sent, received):
        communicator.allReduce(
            *(sent.data.ptr, received.data.ptr, sent.size),
            *(nccl.NCCL_FLOAT64, nccl.NCCL_SUM),
            cuda.cupy.cuda.get_current_stream().ptr,
        )

    return all_reduce


def by_mpi(mpi_comm):
    """Return an all-reduce by an MPI library that takes addresses on the device.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
    """

    def all_reduce(sent, received):
        cuda.cupy.cuda.get_current_stream().synchronize()
        mpi_comm.Allreduce(sent, received)

    return all_reduce
