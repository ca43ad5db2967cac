"""One runner at a time in a directory."""

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path

from chainer_crossbn.errors import UsageError

_NAME = ".lock"


@contextmanager
def held(out):
    """Hold the lock of a directory that gathers runs; make the directory if need be.

    Args:
        out (str): The directory.

    Yields:
        int: A file descriptor. The lock is held as long as any process has it open, so
        that what outlives the runner keeps others out as well.

    Raises:
        UsageError: If the directory can't be written, or another holds its lock.
    """
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(Path(out, _NAME), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"can't write into {out}: {error.strerror}; choose another --out"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"runs are being made in {out} already; wait for them, or choose "
                "another --out"
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)
