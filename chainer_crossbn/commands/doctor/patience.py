"""Ends a rank that waits for others for too long, and says at what."""

import os
import socket
import sys
import threading
from contextlib import contextmanager


class Patience:
    """Where a rank is.

    Args:
        rank (int): The rank, as the launcher told it.
        seconds (float): For how long it may be there.
    """

    def __init__(self, rank, seconds):
        self._rank = rank
        self._seconds = seconds
        self._timer = None

    @contextmanager
    def watching(self):
        """Watch until the end of the block."""
        try:
            yield self
        finally:
            self._cancel()

    def at(self, place):
        """Note in words what this rank comes to."""
        self._cancel()
        self._timer = threading.Timer(self._seconds, self._end, (place,))
        self._timer.daemon = True
        self._timer.start()

    def _cancel(self):
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, place):
        print(
            f"doctor: error: rank {self._rank} (PID {os.getpid()} on "
            f"{socket.gethostname()}) has been at {place} for {self._seconds:g} s; a "
            "rank has not come, or no message gets through from node to node "
            "(firewall, wrong network interface: see docs/clusters.md)",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)
