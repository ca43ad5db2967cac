"""Signals by which a batch system, or a person, asks a run to stop."""

import contextlib
import signal

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def caught():
    """Catch ``SIGTERM`` and ``SIGUSR1``, so that they don't end the process.

    Yields:
        callable: Returns whether one was received.
    """
    received = []
    previous = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in _SIGNALS
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
