"""Names the rank that all others wait for, and ends a run that would wait for ever.

MPI's collectives wait without a limit. So each rank notes the places that it comes to,
in memory that the ranks of a machine share, which takes microseconds and no message; a
thread looks once a second. All ranks come to the same places in the same order, so
whoever is behind is the one that is waited for, be it stopped, hung or gone astray.
"""

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import weakref

from chainer_crossbn import procfs

_CELL = struct.Struct("=Qdq160p")  # places so far, when it came there, PID, the place
_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 5.0
# The collectives of batch normalization, which tell the layer, speak first.
_GRACE_SECONDS = 5.0
# Then, in turn, ranks that are not behind, and those that may not know who is.
_TURN_SECONDS = 0.5
_ELSEWHERE_SECONDS = 2.0
_LAST_WORDS_SECONDS = 0.5


class Watchdog:
    """Watches over the ranks of a machine; all ranks make and close it together.

    Args:
        world (mpi4py.MPI.Comm): All ranks.
        node (mpi4py.MPI.Comm): Those on this machine.
        limit (float): Seconds for which a rank may be waited for.
    """

    def __init__(self, world, node, limit):
        self._rank = world.rank
        self._index = node.rank
        self._ranks = node.allgather(world.rank)
        self._alone = node.size == world.size
        self._limit = limit
        self._count = 0
        self._place = b""
        self._table, self._file = _shared_memory(node, (node.size + 1) * _CELL.size)
        weakref.finalize(self, os.close, self._file)  # when its thread has ended, too
        self._parent = os.getppid()
        self._closed = threading.Event()
        self.at("the start")
        node.Barrier()
        if world.size > 1:  # nobody waits for a rank alone, or starts it to end with it
            threading.Thread(target=self._watch, daemon=True).start()

    def at(self, place):
        """Note that this rank has come to a place, as all others will or have.

        Args:
            place (str): What goes on there.
        """
        self._count += 1
        self._place = place.encode()
        self.moves()

    def moves(self):
        """Note that this rank has not come farther, but is getting on."""
        _CELL.pack_into(
            *(self._table, self._index * _CELL.size, self._count),
            *(time.monotonic(), os.getpid(), self._place),
        )

    def close(self):
        """Watch no more."""
        self._closed.set()

    def _watch(self):
        looked = time.monotonic()
        while not self._closed.wait(_LOOK_SECONDS):
            before, looked = looked, time.monotonic()
            if looked - before > _PAUSE_SECONDS:
                # All were stopped, and go on.
                self.moves()
            if os.getppid() != self._parent:
                # Nobody is left to end it, or to hear why.
                os._exit(1)
            self._look()

    def _look(self):
        now = time.monotonic()
        cells = [
            _CELL.unpack_from(self._table, index * _CELL.size)
            for index in range(len(self._ranks))
        ]
        last = min(count for count, *_ in cells)
        behind = [i for i, (count, *_) in enumerate(cells) if count == last]
        all_alike = len(behind) == len(cells)
        patience = self._limit + _GRACE_SECONDS + _TURN_SECONDS * self._index
        if all_alike and not self._alone:
            patience += _ELSEWHERE_SECONDS
        # Others that wait for long do so because the last to move has stopped.
        if now - max(since for _, since, _, _ in cells) < patience:
            return
        if self._speaks_first():
            print(self._tell(cells, behind, now), file=sys.stderr, flush=True)
            time.sleep(_LAST_WORDS_SECONDS)
            # One that is stopped outlives what else a launcher does to it.
            for _, _, pid, _ in cells:
                if pid != os.getpid():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            os._exit(1)

    def _speaks_first(self):
        """Tell whether no other rank of this machine has told what is wrong."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # one does so now
            return False
        before, self._table[-1] = self._table[-1], 1
        return not before

    def _tell(self, cells, behind, now):
        host = socket.gethostname()
        # In the same collective as the others, it shows by nothing else.
        behind = [i for i in behind if _is_stopped(cells[i][2])] or behind
        told = [
            f"rank {self._ranks[i]} (PID {pid} on {host}) has been at "
            f"{place.decode(errors='replace')} for {now - since:.0f} s"
            for i, (_, since, pid, place) in enumerate(cells)
            if i in behind
        ]
        if len(behind) < len(cells):
            farthest = max(cells)[3].decode(errors="replace")
            told.append(f"the others wait at {farthest}")
        return (
            f"train_cifar.py: error: no progress for {self._limit:g} s "
            f"(CHAINER_CROSSBN_TIMEOUT): {'; '.join(told)}"
        )


def _is_stopped(pid):
    """Return whether a process was stopped by a signal, where /proc has it."""
    process = procfs.process(pid)
    return process is not None and process.state in "Tt"


def _shared_memory(node, size):
    """Return zeros that the ranks of a machine share, and their file, now nameless."""
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
