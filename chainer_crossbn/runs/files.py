"""Files that are whole or not there, whatever happens while they are written."""

import contextlib
import os
import tempfile

TEMPORARY = ".writing-"


@contextlib.contextmanager
def replacing(path):
    """Open a file that takes the place of ``path`` once all is written and on disk.

    Args:
        path (str or os.PathLike): Where it is to be.

    Yields:
        io.BufferedWriter: The file. Where the block ends in an error, ``path`` stays as
        it was.
    """
    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(folder)


def sync_directory(path):
    """Have on disk which files a directory holds."""
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
