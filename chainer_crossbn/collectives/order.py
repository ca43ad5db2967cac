"""Have all ranks come to the same layers in the same order; say where one went wrong.

It is undefined what happens when ranks bring vectors of different lengths to an
all-reduce (Open MPI overwrites memory), so none is started before its length is known
to agree:

- The first time that a layer follows another, the ranks tell each other the layer,
  direction and size (:meth:`Channel._agree`). What was agreed gets a number.
- After that, a layer that can only be followed by vectors of one length is reduced at
  once. Its vector carries the agreed number ``t`` and ``t**2``: over P ranks,
  ``P * sum(t**2) == sum(t)**2`` holds (Cauchy-Schwarz) only when all numbers agree.
- A rank that comes to anything else tells the others, who listen while they wait, and
  look once more when they have their result.

Waiting ends after ``CHAINER_CROSSBN_TIMEOUT`` seconds.
"""

import atexit
import time
from typing import NamedTuple

import numpy

from chainer_crossbn.collectives.limits import timeout, yield_core
from chainer_crossbn.errors import CollectiveError

_SPINS_BETWEEN_CHECKS = 256
_LAST_WORDS_SECONDS = 2.0
_LAST_LOOKS = 1000  # as MPI takes in what has come bit by bit


def tagged(number, vector):
    """Put the tags of a number in front of a vector."""
    return numpy.concatenate([(number, number**2), vector])


def tags_agree(total, size):
    """Return whether all ranks had the same number, by the sum of their vectors."""
    return size * total[1] == total[0] ** 2


class Place(NamedTuple):
    """Where a rank is: in which all-reduce of all, of which layer, of what length."""

    turn: int
    layer: str
    size: int


class Channel:
    """The order of the all-reduces of a communicator.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
        mail_tag (int): Of the messages that tell of an order gone wrong.
    """

    def __init__(self, mpi_comm, mail_tag):
        self._mpi_comm = mpi_comm
        self._mail_tag = mail_tag
        self._size = mpi_comm.size
        self._rank = mpi_comm.rank
        self._others = [rank for rank in range(self._size) if rank != self._rank]
        self._timeout = timeout()
        self._turn = 0
        self._steps = {}
        self._followers = {}
        self._last = None
        self._mail = {}
        self._sent = []
        # MPI ends well only where all messages were taken; the others then learn by
        # their time limit that this rank is gone.
        atexit.register(self._empty_mailbox)

    def meet(self, layer, size):
        """Wait for all ranks, which come for the same all-reduce.

        Args:
            layer (str): What is to be reduced.
            size (int): Its length.

        Raises:
            CollectiveError: If they come for another, or not in time.
        """
        place = Place(self._turn, layer, size)
        self._agree(place)
        self._wait_for_all(place)

    def _wait_for_all(self, place):
        """Wait for all ranks once more, as some may have given up since they agreed."""
        met = self._mpi_comm.Ibarrier().Test
        self._wait(met, place, lambda: self._mail_of(place.turn))

    def _empty_mailbox(self):
        looks = _LAST_LOOKS if self._mpi_comm else 0
        while looks:
            looks -= 1
            if self._mpi_comm.iprobe(tag=self._mail_tag):
                self._mpi_comm.recv(tag=self._mail_tag)
                looks = _LAST_LOOKS

    def _next_step(self, layer, size, *how):
        """Return what a layer is reduced with, when all ranks are known to agree."""
        followers = self._followers.setdefault(self._last, {})
        step = followers.get((layer, size))
        one_length = len(followers) == 1 or len({size for _, size in followers}) == 1
        if step is None or not one_length:
            self._agree(Place(self._turn, layer, size))
            step = followers[layer, size] = self._step_of(layer, size, *how)
        return step

    def _step_of(self, layer, size, *how):
        key = layer, size
        if key not in self._steps:
            number = len(self._steps) + 1
            self._steps[key] = self._make_step(layer, size, number, *how)
        return self._steps[key]

    def _make_step(self, layer, size, number, *how):
        """Return what a layer is reduced with, which has ``layer`` and ``size``."""
        raise NotImplementedError

    def _place_of(self, step):
        return Place(self._turn, step.layer, step.size)

    def _end(self, step):
        """Note that a layer is reduced."""
        if self._sent:
            self._sent = [request for request in self._sent if not request.Test()]
        self._last = step.layer, step.size
        self._turn += 1

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
            self._sent.append(self._mpi_comm.isend(tuple(place), rank, self._mail_tag))

    def _read_mail(self):
        """Take one place from each rank that has sent one."""
        if not self._mpi_comm.iprobe(tag=self._mail_tag):
            return
        for rank in self._others:
            if rank not in self._mail and self._mpi_comm.iprobe(rank, self._mail_tag):
                mail = self._mpi_comm.recv(source=rank, tag=self._mail_tag)
                self._mail[rank] = Place(*mail)

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
