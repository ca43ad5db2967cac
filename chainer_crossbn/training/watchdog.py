"""End a run that would wait forever, and name the rank that the others wait for.

MPI's collectives wait without a time limit. So each rank writes the places that it
reaches to memory that the ranks of a node share, which takes microseconds and no
message, and a thread checks it once a second. All ranks reach the same places in the
same order, so the others wait for the rank that has reached the fewest: it is stopped,
or hangs, or has gone elsewhere.
"""

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import weakref

import numpy

from chainer_crossbn import procfs
from chainer_crossbn.training.progress import Progress

# Per rank: how many places it has reached, the last one in UTF-8, when it last made
# progress, by time.monotonic, and its process.
_STATE = numpy.dtype(
    [("count", "i8"), ("place", "S160"), ("time", "f8"), ("pid", "i8")]
)
_CHECK_SECONDS = 1.0
_PAUSE_SECONDS = 5.0
# The collectives of batch normalization report first, as they know the layer. Then, one
# after the other, the ranks of a node, and last those of a node where none is behind.
_GRACE_SECONDS = 5.0
_SECONDS_BETWEEN_RANKS = 0.5
_SECONDS_FOR_OTHER_NODES = 2.0
_SECONDS_FOR_OUTPUT = 0.5


class Watchdog(Progress):
    """Watches the ranks of a node; all ranks create and close it together.

    Args:
        world (mpi4py.MPI.Comm): All ranks.
        node (mpi4py.MPI.Comm): The ranks of this node.
        limit (float): Seconds that a rank may be without progress.
        grace (float): Further seconds until the watchdog ends the run.
    """

    def __init__(self, world, node, limit: float, grace: float = _GRACE_SECONDS):
        self._index = node.rank
        self._ranks = node.allgather(world.rank)
        self._one_node = node.size == world.size
        self._limit = limit
        self._patience = limit + grace + _SECONDS_BETWEEN_RANKS * node.rank
        self._count = 0
        self._place = b""
        # Of all ranks, and a byte that is set once one rank has reported.
        size = node.size * _STATE.itemsize
        self._memory, self._file = _shared_memory(node, size + 1)
        self._states = numpy.frombuffer(self._memory, _STATE, node.size)
        weakref.finalize(self, os.close, self._file)  # after its thread has ended
        self._parent = os.getppid()
        self._closed = threading.Event()
        self.reach("the start")
        node.Barrier()
        if world.size > 1:  # a single rank waits for nobody
            threading.Thread(target=self._watch, daemon=True).start()

    def reach(self, place: str) -> None:
        """Note that this rank has reached a place, as all other ranks do.

        Args:
            place (str): What is done there.
        """
        self._count += 1
        self._place = place.encode()
        self.keep_alive()

    def keep_alive(self) -> None:
        """Note that this rank makes progress at the place that it is at."""
        state = self._count, self._place, time.monotonic(), os.getpid()
        self._states[self._index] = state

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self):
        checked = time.monotonic()
        while not self._closed.wait(_CHECK_SECONDS):
            previous, checked = checked, time.monotonic()
            if checked - previous > _PAUSE_SECONDS:
                # All ranks were stopped, and continue.
                self.keep_alive()
            if os.getppid() != self._parent:
                # The launcher is gone: nobody would end this rank, or read an error.
                os._exit(1)
            self._check()

    def _check(self):
        now = time.monotonic()
        states = self._states.copy()
        counts = states["count"]
        behind = numpy.flatnonzero(counts == counts.min())
        patience = self._patience
        if len(behind) == len(states) and not self._one_node:
            patience += _SECONDS_FOR_OTHER_NODES
        # The others may wait for long: what counts is the last progress of any.
        if now - states["time"].max() < patience:
            return
        if self._is_first():
            print(self._describe(states, behind, now), file=sys.stderr, flush=True)
            time.sleep(_SECONDS_FOR_OUTPUT)
            # A launcher may not end a process that is stopped.
            for pid in states["pid"].tolist():
                if pid != os.getpid():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            os._exit(1)

    def _is_first(self):
        """Return whether no other rank of this node has reported the problem."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another rank does so now
            return False
        reported, self._memory[-1] = self._memory[-1], 1
        return not reported

    def _describe(self, states, behind, now):
        host = socket.gethostname()
        # A stopped rank in the same collective as the others is not behind.
        stopped = [i for i in behind if _is_stopped(states["pid"][i])]
        behind = stopped or behind
        places = [place.decode(errors="replace") for place in states["place"].tolist()]
        reports = [
            f"rank {self._ranks[i]} (PID {states['pid'][i]} on {host}) has been at "
            f"{places[i]} for {now - states['time'][i]:.0f} s"
            for i in behind
        ]
        if len(behind) < len(states):
            reports.append(f"the others wait at {places[states['count'].argmax()]}")
        return (
            f"train_cifar.py: error: no progress for {self._limit:g} s "
            f"(CHAINER_CROSSBN_TIMEOUT): {'; '.join(reports)}"
        )


def _is_stopped(pid):
    """Return whether a process is stopped by a signal, as far as /proc tells."""
    process = procfs.process(pid)
    return process is not None and process.state in "Tt"


def _shared_memory(node, size):
    """Return zeroed memory that the ranks of a node share, and its unlinked file."""
    name = None
    if node.rank == 0:
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        handle, name = tempfile.mkstemp(prefix="chainer_crossbn-", dir=folder)
        os.ftruncate(handle, size)
    name = node.bcast(name)
    if node.rank:
        handle = os.open(name, os.O_RDWR)
    node.Barrier()
    if node.rank == 0:
        os.unlink(name)
    return mmap.mmap(handle, size), handle
