"""All-reduces of vectors in host memory."""

import functools
import time

import numpy

from chainer_crossbn import kernels
from chainer_crossbn.collectives.order import Channel, Place, tagged
from chainer_crossbn.collectives.shared import SharedStep
from chainer_crossbn.collectives.shared_memory import Slots, is_usable

_MAIL_TAG = 0x4342
_LEAST_SLOT = 4096  # numbers


@functools.cache
def _merging():
    """Return the MPI operation that adds tags and merges the moments behind them."""
    from mpi4py import MPI

    merge_moments = kernels.of(numpy.empty(0)).merge

    def merge(a, b, datatype):
        merge_moments(numpy.frombuffer(a), numpy.frombuffer(b), 2)

    # It does commute, but then Open MPI 5 may pass parts around in a ring, which
    # crashes it where one datum is the whole vector.
    return MPI.Op.Create(merge, commute=False)


@functools.cache
def _whole(size):
    """Return the MPI datatype of a vector that is not taken apart."""
    from mpi4py import MPI

    return MPI.DOUBLE.Create_contiguous(size).Commit()


class _MPIStep:
    """An agreed all-reduce by MPI: its buffers, with tags in them."""

    def __init__(self, layer, size, number, merging, n_ranks):
        self.layer = layer
        self.size = size
        self._send, self._receive = (
            tagged(number, numpy.zeros(size)),
            numpy.empty(size + 2),
        )
        self._arguments = self._send, self._receive
        if merging:
            whole = _whole(size + 2)
            self._arguments = (
                [self._send, 1, whole],
                [self._receive, 1, whole],
                _merging(),
            )
        self._expected = float(n_ranks * number), float(n_ranks * number**2)

    def start(self, mpi_comm, vector, turn):
        """Give this rank's vector."""
        self._send[2:] = vector
        self.done = mpi_comm.Iallreduce(*self._arguments).Test

    def result(self):
        """Return what came out, ``None`` if a rank was at another all-reduce."""
        received = self._receive
        if (received[0], received[1]) != self._expected:
            return None
        return received[2:].copy()


class HostChannel(Channel):
    """All-reduces checked for order and limited in time.

    Ranks of one node reduce in memory that they share, others by non-blocking
    all-reduces of MPI. Pairs of moments are merged
    (:func:`.array_api.merge`).

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.

    Attributes:
        note (callable or None): Called with the start and the end of each all-reduce,
            in seconds of :func:`time.perf_counter`.
    """

    def __init__(self, mpi_comm):
        super().__init__(mpi_comm, _MAIL_TAG)
        self.note = None
        self._shares_memory = None
        self._slots = None

    def sum(self, mpi_comm, vector, layer):
        """Return the sum of the ranks' vectors.

        ``mpi_comm`` is this channel's communicator, of which there may be several
        Python objects.
        """
        return self._reduce(mpi_comm, vector, layer, merging=False)

    def merge(self, mpi_comm, count, mean, m2, layer):
        """Return count, mean and M2 of the ranks' mini-batches together."""
        moments = numpy.concatenate(((count,), mean, m2))
        merged = self._reduce(mpi_comm, moments, layer, merging=True)
        c = len(mean)
        return int(merged[0]), merged[1 : 1 + c], merged[1 + c :]

    def _reduce(self, mpi_comm, vector, layer, merging):
        started = time.perf_counter() if self.note else None
        step = self._next_step(layer, vector.size, merging)
        step.start(mpi_comm, vector, self._turn)
        if not step.done():
            place = self._place_of(step)
            self._wait(step.done, place, lambda: self._mail_of(place.turn))
        self._read_mail()
        result = step.result()
        if result is None or self._mail_of(self._turn):
            self._fail(self._place_of(step))
        self._end(step)
        if self.note:
            self.note(started, time.perf_counter())
        return result

    def _make_step(self, layer, size, number, merging):
        if self._shares_memory is None:
            self._wait_for_all(Place(self._turn, layer, size))
            self._shares_memory = is_usable(self._mpi_comm)
        if not self._shares_memory:
            return _MPIStep(layer, size, number, merging, self._size)
        if self._slots is None or self._slots.size < size:
            self._wait_for_all(Place(self._turn, layer, size))
            self._slots = Slots(self._mpi_comm, max(2 * size, _LEAST_SLOT))
        return SharedStep(layer, size, number, merging, self._slots)
