"""All-reduces of vectors in host memory, by MPI."""

import functools
import time
from typing import NamedTuple

import numpy

from chainer_crossbn import kernels
from chainer_crossbn.collectives.order import Channel, tagged

_MAIL_TAG = 0x4342


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


class _Step(NamedTuple):
    """An agreed all-reduce: its buffers, with tags in them, and what these add to."""

    layer: str
    size: int
    send: numpy.ndarray
    receive: numpy.ndarray
    arguments: tuple  # of Iallreduce
    sum: float
    sum_of_squares: float

    @classmethod
    def make(cls, layer, size, number, n_ranks, merging):
        send, receive = tagged(number, numpy.zeros(size)), numpy.empty(size + 2)
        arguments = send, receive
        if merging:
            whole = _whole(len(send))
            arguments = [send, 1, whole], [receive, 1, whole], _merging()
        return cls(
            *(layer, size, send, receive, arguments),
            *(float(n_ranks * number), float(n_ranks * number**2)),
        )


class HostChannel(Channel):
    """Non-blocking all-reduces by MPI, checked for order and limited in time.

    Pairs of moments are merged inside the all-reduce
    (:func:`chainer_crossbn.kernels.arrays.merge`).

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.

    Attributes:
        note (callable or None): Called with the start and the end of each all-reduce,
            in seconds of :func:`time.perf_counter`.
    """

    def __init__(self, mpi_comm):
        super().__init__(mpi_comm, _MAIL_TAG)
        self.note = None

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
        step.send[2:] = vector
        request = mpi_comm.Iallreduce(*step.arguments)
        if not request.Test():
            place = self._place_of(step)
            self._wait(request.Test, place, lambda: self._mail_of(place.turn))
        self._read_mail()
        receive = step.receive
        tags_agree = receive[0] == step.sum and receive[1] == step.sum_of_squares
        if not tags_agree or self._mail_of(self._turn):
            self._fail(self._place_of(step))
        self._end(step)
        if self.note:
            self.note(started, time.perf_counter())
        return receive[2:].copy()

    def _make_step(self, layer, size, number, merging):
        return _Step.make(layer, size, number, self._size, merging)
