"""All-reduces of vectors in host memory."""

import functools
import time
from collections.abc import Callable
from typing import Optional

import numpy

from chainer_crossbn import kernels
from chainer_crossbn.collectives import choice
from chainer_crossbn.collectives.order import OrderedChannel, with_tags
from chainer_crossbn.collectives.shared_memory import Slots

_MESSAGE_TAG = 0x4342
_MIN_SLOT_SIZE = 4096  # numbers


class HostChannel(OrderedChannel):
    """All-reduces that are checked for order and limited in time.

    Ranks of one node reduce in memory that they share, others by non-blocking
    all-reduces of MPI. Pairs of moments are merged (:func:`.array_api.merge`).

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
    """

    def __init__(self, mpi_comm):
        super().__init__(mpi_comm, _MESSAGE_TAG)
        self._observer: Optional[Callable[[float, float], None]] = None
        self._shares_memory: Optional[bool] = None
        self._slots: Optional[Slots] = None
        self._mpi_buffers: dict[tuple[int, bool], _MPIBuffers] = {}

    def observe(self, observer: Callable[[float, float], None]) -> None:
        """Call a function after each all-reduce.

        Args:
            observer (callable): Takes the start and the end of the all-reduce, in
                seconds of :func:`time.perf_counter`.
        """
        self._observer = observer

    def sum(self, vector, layer: str):
        """Return the sum of the ranks' vectors."""
        return self._reduce(vector, layer, merging=False)

    def merge(self, count: int, mean, m2, layer: str):
        """Return count, mean and M2 of the ranks' mini-batches together."""
        moments = numpy.concatenate(((count,), mean, m2))
        merged = self._reduce(moments, layer, merging=True)
        c = len(mean)
        return int(merged[0]), merged[1 : 1 + c], merged[1 + c :]

    def _reduce(self, vector, layer, merging):
        started = time.perf_counter() if self._observer else None
        number = self._begin(layer, vector.size)
        if self._is_shared():
            result = self._reduce_in_slots(vector, number, merging)
        else:
            result = self._reduce_by_mpi(vector, number, merging)
        self._messages.receive()
        if result is None or self._others_failed():
            self._fail()
        self._end()
        if self._observer:
            self._observer(started, time.perf_counter())
        return result

    def _is_shared(self):
        if self._shares_memory is None:
            self._barrier()  # what follows has no time limit
            transport = choice.choose(self._mpi_comm, on_gpu=False)
            self._shares_memory = transport == choice.SHARED
        return self._shares_memory

    def _reduce_in_slots(self, vector, number, merging):
        """Return the result, or None if the ranks are at different layers."""
        if self._slots is None or self._slots.size < vector.size:
            self._barrier()  # what follows has no time limit
            self._slots = Slots(self._mpi_comm, max(2 * vector.size, _MIN_SLOT_SIZE))
        slots, sequence = self._slots, self._sequence
        slots.mine(sequence)[: vector.size] = vector
        slots.publish(sequence, number)
        self._wait(lambda: slots.all_published(sequence), self._others_failed)
        vectors = slots.all(sequence, number)
        if vectors is None:
            return None
        result = numpy.empty(vector.size)
        on_host = kernels.of(result)
        reduce_rows = on_host.merge_rows if merging else on_host.sum_rows
        reduce_rows(vectors, result)
        return result

    def _reduce_by_mpi(self, vector, number, merging):
        """Return the result, or None if the ranks are at different layers."""
        key = vector.size, merging
        if key not in self._mpi_buffers:
            self._mpi_buffers[key] = _MPIBuffers(*key)
        buffers = self._mpi_buffers[key]
        buffers.sent[:] = with_tags(number, vector)
        request = self._mpi_comm.Iallreduce(*buffers.arguments)
        self._wait(request.Test, self._others_failed)
        tags = buffers.received[:2].tolist()
        if tags != [self._n_ranks * number, self._n_ranks * number**2]:
            return None
        return buffers.received[2:].copy()


class _MPIBuffers:
    """Buffers for an all-reduce of tags and a vector.

    Args:
        size (int): Length of the vector.
        merging (bool): Whether vectors are moments that are merged, else summed.

    Attributes:
        sent: float64 array of shape (2 + size,).
        received: Likewise.
        arguments (tuple): Of ``Iallreduce``.
    """

    def __init__(self, size: int, merging: bool):
        self.sent, self.received = numpy.empty((2, 2 + size))
        self.arguments: tuple = (self.sent, self.received)
        if merging:
            datatype = _vector_type(2 + size)
            self.arguments = (
                [self.sent, 1, datatype],
                [self.received, 1, datatype],
                _merging(),
            )


@functools.cache
def _merging():
    """Return the MPI operation that adds tags and merges the moments behind them."""
    from mpi4py import MPI

    merge_moments = kernels.of(numpy.empty(0)).merge

    def merge(a, b, datatype):
        merge_moments(numpy.frombuffer(a), numpy.frombuffer(b), 2)

    # It is commutative. But then Open MPI 5 may reduce parts of the vector in a ring,
    # and crashes where one datum is the whole vector.
    return MPI.Op.Create(merge, commute=False)


@functools.cache
def _vector_type(size):
    """Return the MPI datatype of a vector that MPI must not split."""
    from mpi4py import MPI

    return MPI.DOUBLE.Create_contiguous(size).Commit()
