"""The disk that results go to."""

import os
import shutil
import tempfile
import time

# Four snapshots and a model of VGG16 as it is, 33.6 million parameters.
NEEDED = 1_250_000_000
_WRITTEN = 8 << 20


def look(out):
    """Look where results will go, and write there what leaves no trace.

    Args:
        out (str): A directory, which need not be there yet.

    Returns:
        dict: ``path``, what is there of ``out``; ``free``, bytes; ``rate``, bytes
        written in a second; ``error``, in words why it can't be written, or ``None``.
    """
    path = os.path.abspath(out)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    found = {"path": path, "free": 0, "rate": 0.0, "error": None}
    try:
        found["free"] = shutil.disk_usage(path).free
        started = time.perf_counter()
        # Without a name it goes with the process, whatever happens.
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(os.urandom(_WRITTEN))
            file.flush()
            os.fsync(file.fileno())
        found["rate"] = _WRITTEN / (time.perf_counter() - started)
    except OSError as error:
        found["error"] = error.strerror
    return found
