"""Messages in which the ranks of a communicator tell each other where they are."""

import atexit
import weakref
from typing import NamedTuple

from mpi4py import MPI

_DRAIN_PROBES = 1000  # MPI takes in messages that have arrived bit by bit


class Place(NamedTuple):
    """Where a rank is.

    Attributes:
        sequence (int): Number of the all-reduce, of all those of the communicator.
        layer (str): What the all-reduce is for: name of a layer, and a direction.
        size (int): Length of the rank's vector.
    """

    sequence: int
    layer: str
    size: int


# References are weak, so that a freed communicator's messages are freed too.
_instances: "weakref.WeakSet[PlaceMessages]" = weakref.WeakSet()


@atexit.register
def _drain_all():
    """Receive what has arrived: only then does MPI finalize cleanly.

    A rank that ends early is noticed by the time limit of the others.
    """
    if not _instances:
        return

    if not MPI.Is_finalized():
        for messages in list(_instances):
            messages.drain()


class PlaceMessages:
    """Sends this rank's place to all others, and receives theirs.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
        tag (int): MPI tag of the messages.

    Attributes:
        received (dict): From a rank to its place, for each rank of which a message was
            received since :meth:`clear`.
    """

    def __init__(self, mpi_comm, tag: int):
        self._mpi_comm = mpi_comm
        self._tag = tag
        self._others = [rank for rank in range(mpi_comm.size) if rank != mpi_comm.rank]
        self._requests: list = []
        self.received: dict[int, Place] = {}
        _instances.add(self)

    def send(self, place: Place) -> None:
        """Send a place to all other ranks, without waiting for them."""
        for rank in self._others:
            request = self._mpi_comm.isend(tuple(place), rank, self._tag)
            self._requests.append(request)

    def free_sent(self) -> None:
        """Free what was kept of messages that have left."""
        if self._requests:
            self._requests = [r for r in self._requests if not r.Test()]

    def receive(self) -> None:
        """Receive one message, if there is any, from each rank not yet received."""
        if not self._mpi_comm.iprobe(tag=self._tag):
            return
        for rank in self._others:
            if rank not in self.received and self._mpi_comm.iprobe(rank, self._tag):
                place = self._mpi_comm.recv(source=rank, tag=self._tag)
                self.received[rank] = Place(*place)

    def all_received(self) -> bool:
        """Return whether there is a message of every other rank."""
        return len(self.received) == len(self._others)

    def any_differs(self, place: Place) -> bool:
        """Return whether a rank has sent another place than this one."""
        return any(other != place for other in self.received.values())

    def any_until(self, sequence: int) -> bool:
        """Return whether a rank has sent a place of this all-reduce or one before."""
        return any(other.sequence <= sequence for other in self.received.values())

    def clear(self) -> None:
        """Forget what was received."""
        self.received.clear()

    def drain(self) -> None:
        """Receive and drop all messages that have arrived."""
        # False once the communicator was freed.
        probes = _DRAIN_PROBES if self._mpi_comm else 0
        while probes:
            probes -= 1
            if self._mpi_comm.iprobe(tag=self._tag):
                self._mpi_comm.recv(tag=self._tag)
                probes = _DRAIN_PROBES
