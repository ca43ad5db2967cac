"""Signals by which a batch system, or a person, asks a run to stop."""

import contextlib
import signal

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def noted():
    """Have ``SIGTERM`` and ``SIGUSR1`` noted instead of ending the process.

    Yields:
        callable: Returns whether one has come.
    """
    come = []
    previous = {
        number: signal.signal(number, lambda number, frame: come.append(number))
        for number in _SIGNALS
    }
    try:
        yield lambda: bool(come)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
