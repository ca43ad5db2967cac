"""Check that all ranks reach the same layers in the same order.

If ranks pass vectors of different lengths to an all-reduce, anything may happen (Open
MPI overwrites memory), so none starts before the lengths are known to agree.

1. *The first time that a layer follows another*, the ranks check the order: each sends
   its place (number of the all-reduce, layer, size) to all others, and waits for
   theirs. They go on if all are equal. Each checked pair of layer and size gets a
   number, the same on all ranks.
2. *After that* nothing more is sent. The vector itself carries the number ``n`` of its
   layer, and ``n**2``. Over P ranks, ``P * sum(n**2) == sum(n)**2`` only if all numbers
   are equal (Cauchy-Schwarz). If layers of different sizes may follow, the ranks check
   the order again, as in 1.
3. *A rank that finds a mismatch*, in 1 or 2, or that has waited for
   ``CHAINER_CROSSBN_TIMEOUT`` seconds, sends its place to all others, waits for theirs
   for two seconds, and raises an error that lists them. Ranks look for such messages
   while they wait for an all-reduce, and once more when they have its result.
"""

import time
from collections.abc import Callable
from typing import Optional

import numpy

from chainer_crossbn.collectives.limits import timeout, yield_core
from chainer_crossbn.collectives.messages import Place, PlaceMessages
from chainer_crossbn.errors import CollectiveError

_SPINS_BETWEEN_LOOKS = 256
_SECONDS_FOR_PLACES = 2.0


def with_tags(number: int, vector: numpy.ndarray) -> numpy.ndarray:
    """Put a number and its square in front of a vector."""
    return numpy.concatenate([(number, number**2), vector])


def tags_agree(total: numpy.ndarray, n_ranks: int) -> bool:
    """Return whether all ranks had the same number, given the sum of their vectors."""
    return n_ranks * total[1] == total[0] ** 2


class OrderedChannel:
    """Base of all-reduces over a communicator whose order is checked.

    A subclass calls :meth:`_begin`, reduces a vector that carries the number that this
    returns, waits by :meth:`_wait`, calls :meth:`_fail` on a mismatch, and else
    :meth:`_end`.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
        tag (int): MPI tag of the messages of the check.
    """

    def __init__(self, mpi_comm, tag: int):
        self._mpi_comm = mpi_comm
        self._n_ranks = mpi_comm.size
        self._timeout = timeout()
        self._messages = PlaceMessages(mpi_comm, tag)
        self._sequence = 0
        self._place: Optional[Place] = None
        # Of pairs of layer and size.
        self._numbers: dict[tuple[str, int], int] = {}
        self._successors: dict[Optional[tuple[str, int]], set[tuple[str, int]]] = {}
        self._previous: Optional[tuple[str, int]] = None

    def meet(self, layer: str, size: int) -> None:
        """Wait for all ranks, which are about to reduce the same vector.

        Args:
            layer (str): What is reduced.
            size (int): Its length.

        Raises:
            CollectiveError: If the ranks differ, or do not come in time.
        """
        self._place = Place(self._sequence, layer, size)
        self._check_order()
        self._barrier()

    def _begin(self, layer: str, size: int) -> int:
        """Return the number of a layer, on which all ranks are known to agree."""
        self._place = Place(self._sequence, layer, size)
        key = layer, size
        successors = self._successors.setdefault(self._previous, set())
        one_size = len(successors) == 1 or len({size for _, size in successors}) == 1
        if key not in successors or not one_size:
            self._check_order()
            successors.add(key)
        return self._numbers.setdefault(key, len(self._numbers) + 1)

    def _end(self) -> None:
        """Note that the vector of the current place is reduced."""
        assert self._place is not None
        self._messages.free_sent()
        self._previous = self._place.layer, self._place.size
        self._sequence += 1

    def _check_order(self):
        """Exchange places with all ranks, and fail unless they are equal."""

        def differs():
            return self._messages.any_differs(self._place)

        def all_received():
            self._messages.receive()
            return self._messages.all_received()

        self._messages.send(self._place)
        self._wait(all_received, differs)
        if differs():
            self._fail()
        self._messages.clear()

    def _barrier(self):
        """Wait for all ranks again, as some may have failed since the check."""
        self._wait(self._mpi_comm.Ibarrier().Test, self._others_failed)

    def _others_failed(self) -> bool:
        # A message of a later all-reduce is from a rank that has finished this one.
        return self._messages.any_until(self._sequence)

    def _wait(self, done: Callable[[], bool], mismatch: Callable[[], bool]) -> None:
        """Wait until ``done``; fail if ``mismatch``, or at the time limit."""
        deadline = time.monotonic() + self._timeout
        spins = 0
        while not done():
            spins += 1
            if spins % _SPINS_BETWEEN_LOOKS == 0:
                self._messages.receive()
                if mismatch() or time.monotonic() > deadline:
                    self._fail()
            yield_core()

    def _fail(self):
        """Exchange places with the ranks that still answer, and raise an error."""
        self._messages.send(self._place)
        deadline = time.monotonic() + _SECONDS_FOR_PLACES
        while not self._messages.all_received() and time.monotonic() < deadline:
            self._messages.receive()
            time.sleep(0.001)
        places = {**self._messages.received, self._mpi_comm.rank: self._place}
        raise CollectiveError(_describe(places, self._n_ranks, self._timeout))


def _describe(places: dict[int, Place], n_ranks: int, seconds: float) -> str:
    """Return a message that tells where each rank is."""
    time_limit = f"within {seconds:g} s (CHAINER_CROSSBN_TIMEOUT)"
    if len(set(places.values())) > 1:
        reason = "the ranks did not all reach the same layer"
        without_place = "did not answer"
    elif len(places) < n_ranks:
        reason = f"the ranks did not all reach the same layer {time_limit}"
        without_place = "did not come"
    else:
        reason = f"the ranks did not reach this layer {time_limit} of each other"
        without_place = ""
    ranks = [
        f"rank {rank} is at {places[rank].layer} ({places[rank].size} numbers)"
        if rank in places
        else f"rank {rank} {without_place}"
        for rank in range(n_ranks)
    ]
    return f"{reason}: {'; '.join(ranks)}"
