"""Sum one small vector over the ranks of a communicator, and say where it went wrong.

All collectives of cross-GPU batch normalization are such sums. MPI leaves it undefined
what happens when ranks bring vectors of different lengths (Open MPI overwrites memory),
so where there is an ``mpi_comm`` no sum is started before its length is known to agree:

- The first time that a layer follows another, the ranks tell each other the layer,
  direction and size (:meth:`_MPIChannel._agree`). What was agreed gets a number.
- After that, a layer that can only be followed by sums of one length is summed at
  once. Its vector carries the agreed number ``t`` and ``t**2``: over P ranks,
  ``P * sum(t**2) == sum(t)**2`` holds (Cauchy-Schwarz) only when all numbers agree.
- A rank that comes to anything else tells the others, who listen while they wait.

Waiting ends after ``CHAINER_CROSSBN_TIMEOUT`` seconds (default 300).
"""

import functools
import os
import time
import zlib
from typing import NamedTuple

import numpy
from chainer import backend

DEFAULT_TIMEOUT = 300.0

_MAIL_TAG = 0x4342
_SPINS_BETWEEN_CHECKS = 256
_LAST_WORDS_SECONDS = 2.0


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
            direction with the same size, or if one did not come in time.
    """
    if comm.size == 1:
        return vector
    host = backend.CpuDevice().send(vector)
    if hasattr(comm, "mpi_comm"):
        total = _channel(comm.mpi_comm).sum(host, layer)
    else:
        total = _allreduce(comm, host, layer)
    return backend.get_device_from_array(vector).send(total)


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
_yield_core = getattr(os, "sched_yield", lambda: time.sleep(0))


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
    # Imported here, as importing it starts MPI.
    from mpi4py import MPI

    return MPI.Comm.Create_keyval()


def _channel(mpi_comm):
    """Return the channel of an MPI communicator, which ChainerMN's may share."""
    channel = mpi_comm.Get_attr(_keyval())
    if channel is None:
        channel = _MPIChannel(mpi_comm)
        mpi_comm.Set_attr(_keyval(), channel)
    return channel


class _Place(NamedTuple):
    """Where a rank is: its how-many-th sum this is, of which layer, of what length."""

    turn: int
    layer: str
    size: int


class _MPIChannel:
    """Non-blocking sums by MPI, checked for order and limited in time."""

    def __init__(self, mpi_comm):
        self._mpi_comm = mpi_comm
        self._size = mpi_comm.size
        self._rank = mpi_comm.rank
        self._others = [rank for rank in range(self._size) if rank != self._rank]
        self._timeout = timeout()
        self._turn = 0
        self._numbers = {}
        self._followers = {}
        self._last = None
        self._mail = {}
        self._sent = []
        self._buffers = {}

    def sum(self, vector, layer):
        key = (layer, vector.size)
        place = _Place(self._turn, *key)
        followers = self._followers.setdefault(self._last, set())
        if key not in followers or len({size for _, size in followers}) > 1:
            self._agree(place)
            followers.add(key)
            self._numbers.setdefault(key, len(self._numbers) + 1)
        number = self._numbers[key]
        send, receive = self._buffers_of(vector.size)
        send[0], send[1], send[2:] = number, number**2, vector
        request = self._mpi_comm.Iallreduce(send, receive)
        self._wait(request.Test, place, lambda: self._mail_of(place.turn))
        if not _tags_agree(receive, self._size):
            self._fail(place)
        self._forget_sent()
        self._last = key
        self._turn += 1
        return receive[2:].copy()

    def _buffers_of(self, size):
        if size not in self._buffers:
            self._buffers[size] = numpy.empty(size + 2), numpy.empty(size + 2)
        return self._buffers[size]

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

    def _forget_sent(self):
        self._sent = [request for request in self._sent if not request.Test()]

    def _read_mail(self):
        """Take one place from each rank that has sent one."""
        for rank in self._others:
            if rank not in self._mail and self._mpi_comm.iprobe(rank, _MAIL_TAG):
                mail = self._mpi_comm.recv(source=rank, tag=_MAIL_TAG)
                self._mail[rank] = _Place(*mail)

    def _mail_of(self, turn):
        # Mail of a later turn comes from a rank for which this sum is complete.
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
                    self._fail(place, f" within {self._timeout:g} s")
            _yield_core()

    def _fail(self, place, late=""):
        """Tell where this rank is, hear where the others are, and raise an error."""
        self._tell(place)
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while len(self._mail) < len(self._others) and time.monotonic() < deadline:
            self._read_mail()
            time.sleep(0.001)
        places = {**self._mail, self._rank: place}
        where = [
            f"rank {rank} is at {places[rank].layer} ({places[rank].size} numbers)"
            if rank in places
            else f"rank {rank} did not come{late}"
            for rank in range(self._size)
        ]
        raise CollectiveError(
            "the ranks did not all reach the same layer: " + "; ".join(where)
        )
