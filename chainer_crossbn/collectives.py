"""Reduce one small vector over the ranks of a communicator; say where it went wrong.

All collectives of cross-GPU batch normalization are such all-reduces: of moments in the
forward pass, of sums in the backward pass. MPI leaves it undefined what happens when
ranks bring vectors of different lengths (Open MPI overwrites memory), so where there is
an ``mpi_comm`` none is started before its length is known to agree:

- The first time that a layer follows another, the ranks tell each other the layer,
  direction and size (:meth:`_MPIChannel._agree`). What was agreed gets a number.
- After that, a layer that can only be followed by vectors of one length is reduced at
  once. Its vector carries the agreed number ``t`` and ``t**2``: over P ranks,
  ``P * sum(t**2) == sum(t)**2`` holds (Cauchy-Schwarz) only when all numbers agree.
- A rank that comes to anything else tells the others, who listen while they wait, and
  look once more when they have their result.

Waiting ends after ``CHAINER_CROSSBN_TIMEOUT`` seconds (default 300).
"""

import atexit
import functools
import os
import time
import zlib
from typing import NamedTuple

import numpy
from chainer import backend

from chainer_crossbn import kernels

DEFAULT_TIMEOUT = 300.0

_MAIL_TAG = 0x4342
_SPINS_BETWEEN_CHECKS = 256
_LAST_WORDS_SECONDS = 2.0
_LAST_LOOKS = 1000  # as MPI takes in what has come bit by bit


class CollectiveError(RuntimeError):
    """The ranks did not all reach the same layer; the message says where each is."""


def sum_over_ranks(comm, vector, layer):
    """Sum a vector over all ranks of a communicator.

    Args:
        comm: ChainerMN communicator. One with ``mpi_comm`` is waited for with a time
            limit and checked for the order of layers before each sum. Of any other the
            ``allreduce`` is called, and the order is checked by what comes back.
        vector: float64 array of shape (m,), on CPU or GPU.
        layer: A string that names the layer and the direction, equal on all ranks.

    Returns:
        float64 array of shape (m,), on the device of ``vector``, equal on all ranks.

    Raises:
        CollectiveError: If the ranks did not all reach the same layer in the same
            direction with the same size, or if one did not come in time. Where there
            is no ``mpi_comm``, other sizes and absent ranks are not seen.
        ValueError: If ``CHAINER_CROSSBN_TIMEOUT`` is not a positive number.
    """
    if comm.size == 1:
        return vector
    if isinstance(vector, numpy.ndarray):
        return _sum(comm, vector, layer)
    host = backend.CpuDevice().send(vector)
    return backend.get_device_from_array(vector).send(_sum(comm, host, layer))


def merge_moments(comm, count, mean, m2, layer):
    """Merge the moments of the mini-batches of all ranks of a communicator.

    Where the communicator has an ``mpi_comm``, pairs are merged inside the all-reduce
    (:func:`chainer_crossbn.kernels.gpu.merge`), and the relative error of ``m2`` is
    some 1e-16 * mean / std. Of any other, ``allreduce`` sums
    ``[n, n * mean, m2 + n * mean**2]``, with an error of some 1e-16 * (mean / std)**2.

    Args:
        comm: As for :func:`sum_over_ranks`.
        count (int): Elements of a channel on this rank, 0 if it has none.
        mean: float64 array of shape (c,), their mean.
        m2: float64 array of shape (c,), the sum of their squared deviations.
        layer: As for :func:`sum_over_ranks`.

    Returns:
        tuple: count, mean and m2 of the global batch, equal on all ranks.

    Raises:
        CollectiveError, ValueError: As :func:`sum_over_ranks`.
    """
    if comm.size == 1:
        return count, mean, m2
    if isinstance(mean, numpy.ndarray):
        return _merge(comm, numpy.concatenate(((count,), mean, m2)), layer)
    host, device = backend.CpuDevice(), backend.get_device_from_array(mean)
    moments = numpy.concatenate(((count,), host.send(mean), host.send(m2)))
    total, mean_of_all, m2_of_all = _merge(comm, moments, layer)
    return total, device.send(mean_of_all), device.send(m2_of_all)


def _sum(comm, vector, layer):
    if hasattr(comm, "mpi_comm"):
        return _channel(comm.mpi_comm).reduce(comm.mpi_comm, vector, layer)
    return _allreduce(comm, vector, layer)


def _merge(comm, moments, layer):
    c = len(moments) // 2
    if hasattr(comm, "mpi_comm"):
        channel = _channel(comm.mpi_comm)
        merged = channel.reduce(comm.mpi_comm, moments, layer, merging=True)
        return int(merged[0]), merged[1 : 1 + c], merged[1 + c :]
    n, mean = moments[0], moments[1 : 1 + c]
    moments[1 + c :] += n * mean * mean
    moments[1 : 1 + c] *= n
    total = _allreduce(comm, moments, layer)
    mean = total[1 : 1 + c] / max(total[0], 1)
    m2 = total[1 + c :] - total[0] * mean * mean
    # Not max(0, m2): that would hide a NaN.
    return int(total[0]), mean, numpy.where(m2 < 0, 0, m2)


def observe(comm, note):
    """Have it noted when this rank starts and ends each collective of a communicator.

    Args:
        comm: ChainerMN communicator with ``mpi_comm``, which others may share.
        note (callable): Takes the start and the end, in seconds of
            :func:`time.perf_counter`.
    """
    _channel(comm.mpi_comm).note = note


def timeout():
    """Return the time limit of a collective in seconds (``CHAINER_CROSSBN_TIMEOUT``).

    Raises:
        ValueError: If the environment variable is not a positive number.
    """
    text = os.environ.get("CHAINER_CROSSBN_TIMEOUT", "")
    try:
        seconds = float(text) if text else DEFAULT_TIMEOUT
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(
            f"CHAINER_CROSSBN_TIMEOUT is {text!r}; set it to seconds above 0"
        )
    return seconds


# Lets a rank that shares the core run.
yield_core = getattr(os, "sched_yield", lambda: time.sleep(0))


def _tagged(number, vector):
    return numpy.concatenate([(number, number**2), vector])


def _tags_agree(total, size):
    return size * total[1] == total[0] ** 2


def _allreduce(comm, vector, layer):
    """The reference path: any communicator that has ``allreduce``."""
    # 16 bits, so that the check is exact with up to a thousand ranks.
    number = zlib.crc32(f"{layer} {vector.size}".encode()) & 0xFFFF
    total = comm.allreduce(_tagged(number, vector))
    if not _tags_agree(total, comm.size):
        raise CollectiveError(
            f"the ranks reached different layers: this one is at {layer}"
        )
    return total[2:]


@functools.cache
def _keyval():
    # Imported here and below, as importing it starts MPI.
    from mpi4py import MPI

    return MPI.Comm.Create_keyval()


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


def _channel(mpi_comm):
    """Return the channel of an MPI communicator, which ChainerMN's may share."""
    channel = mpi_comm.Get_attr(_keyval())
    if channel is None:
        channel = _MPIChannel(mpi_comm)
        mpi_comm.Set_attr(_keyval(), channel)
    return channel


class _Place(NamedTuple):
    """Where a rank is: in which all-reduce of all, of which layer, of what length."""

    turn: int
    layer: str
    size: int


class _Step(NamedTuple):
    """An agreed all-reduce: its buffers, with tags in them, and what these add to."""

    layer: str
    send: numpy.ndarray
    receive: numpy.ndarray
    arguments: tuple  # of Iallreduce
    sum: float
    sum_of_squares: float

    @classmethod
    def make(cls, layer, size, number, n_ranks, merging):
        send, receive = _tagged(number, numpy.zeros(size)), numpy.empty(size + 2)
        arguments = send, receive
        if merging:
            whole = _whole(len(send))
            arguments = [send, 1, whole], [receive, 1, whole], _merging()
        return cls(
            *(layer, send, receive, arguments),
            *(float(n_ranks * number), float(n_ranks * number**2)),
        )


class _MPIChannel:
    """Non-blocking all-reduces by MPI, checked for order and limited in time."""

    def __init__(self, mpi_comm):
        self._mpi_comm = mpi_comm
        self._size = mpi_comm.size
        self._rank = mpi_comm.rank
        self._others = [rank for rank in range(self._size) if rank != self._rank]
        self._timeout = timeout()
        self._turn = 0
        self._steps = {}
        self._followers = {}
        self._last = None
        self.note = None
        self._mail = {}
        self._sent = []
        # MPI ends well only where all messages were taken; the others then learn by
        # their time limit that this rank is gone.
        atexit.register(self._empty_mailbox)

    def _empty_mailbox(self):
        looks = _LAST_LOOKS if self._mpi_comm else 0
        while looks:
            looks -= 1
            if self._mpi_comm.iprobe(tag=_MAIL_TAG):
                self._mpi_comm.recv(tag=_MAIL_TAG)
                looks = _LAST_LOOKS

    def reduce(self, mpi_comm, vector, layer, merging=False):
        """Return the sum, or the merged moments, of the ranks' vectors.

        ``mpi_comm`` is this channel's communicator, of which there may be several
        Python objects.
        """
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
        if self._sent:
            self._sent = [request for request in self._sent if not request.Test()]
        self._last = layer, vector.size
        self._turn += 1
        if self.note:
            self.note(started, time.perf_counter())
        return receive[2:].copy()

    def _next_step(self, layer, size, merging):
        """Return what a layer is reduced with, when all ranks are known to agree."""
        followers = self._followers.setdefault(self._last, {})
        step = followers.get((layer, size))
        one_length = len(followers) == 1 or len({size for _, size in followers}) == 1
        if step is None or not one_length:
            self._agree(_Place(self._turn, layer, size))
            step = followers[layer, size] = self._step_of(layer, size, merging)
        return step

    def _step_of(self, layer, size, merging):
        key = layer, size
        if key not in self._steps:
            number = len(self._steps) + 1
            self._steps[key] = _Step.make(layer, size, number, self._size, merging)
        return self._steps[key]

    def _place_of(self, step):
        return _Place(self._turn, step.layer, step.send.size - 2)

    def _agree(self, place):
        """Exchange places with all ranks; return when they are the same."""

        def all_came():
            self._read_mail()
            return len(self._mail) == len(self._others)

        self._tell(place)
        self._wait(
            all_came, place, lambda: any(mail != place for mail in self._mail.values())
        )
        if any(mail != place for mail in self._mail.values()):
            self._fail(place)
        self._mail.clear()

    def _tell(self, place):
        for rank in self._others:
            self._sent.append(self._mpi_comm.isend(tuple(place), rank, _MAIL_TAG))

    def _read_mail(self):
        """Take one place from each rank that has sent one."""
        if not self._mpi_comm.iprobe(tag=_MAIL_TAG):
            return
        for rank in self._others:
            if rank not in self._mail and self._mpi_comm.iprobe(rank, _MAIL_TAG):
                mail = self._mpi_comm.recv(source=rank, tag=_MAIL_TAG)
                self._mail[rank] = _Place(*mail)

    def _mail_of(self, turn):
        # Mail of a later turn comes from a rank for which this one is complete.
        return any(mail.turn <= turn for mail in self._mail.values())

    def _wait(self, done, place, failed):
        deadline = time.monotonic() + self._timeout
        spins = 0
        while not done():
            spins += 1
            if spins % _SPINS_BETWEEN_CHECKS == 0:
                self._read_mail()
                if failed():
                    self._fail(place)
                if time.monotonic() > deadline:
                    self._fail(place)
            yield_core()

    def _fail(self, place):
        """Tell where this rank is, hear where the others are, and raise an error."""
        self._tell(place)
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while len(self._mail) < len(self._others) and time.monotonic() < deadline:
            self._read_mail()
            time.sleep(0.001)
        places = {**self._mail, self._rank: place}
        time_limit = f"within {self._timeout:g} s (CHAINER_CROSSBN_TIMEOUT)"
        if len(set(places.values())) > 1:
            reason = "the ranks did not all reach the same layer"
            silent = "was not heard of"
        elif len(places) < self._size:
            reason = f"the ranks did not all reach the same layer {time_limit}"
            silent = "did not come"
        else:
            reason = f"the ranks did not reach this layer {time_limit} of each other"
        where = [
            f"rank {rank} is at {places[rank].layer} ({places[rank].size} numbers)"
            if rank in places
            else f"rank {rank} {silent}"
            for rank in range(self._size)
        ]
        raise CollectiveError(f"{reason}: {'; '.join(where)}")
