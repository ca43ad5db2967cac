"""How ranks wait for each other, and how long."""

import os
import time

DEFAULT_TIMEOUT = 300.0

# Lets another rank on the same core run.
yield_core = getattr(os, "sched_yield", lambda: time.sleep(0))


def timeout() -> float:
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
