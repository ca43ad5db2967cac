"""Write files atomically, and lock and rename directories."""

import contextlib
import fcntl
import itertools
import json
import os
import secrets
from collections.abc import Iterator
from typing import BinaryIO, Union

from chainer_crossbn.errors import UsageError

TEMPORARY = ".writing-"
LOCK = ".lock"

_Path = Union[str, "os.PathLike[str]"]


@contextlib.contextmanager
def replacing(path: _Path) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` once it is complete and on disk.

    Args:
        path (str or os.PathLike): The file to write.

    Yields:
        io.BufferedWriter: The new file. If the block raises, ``path`` is unchanged.
    """
    folder = os.path.dirname(path)
    # Unlike a file of tempfile, with the permissions of any file of the user.
    temporary = os.path.join(folder, TEMPORARY + secrets.token_hex(8))
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(folder)


def sync_directory(path: _Path) -> None:
    """Flush the entries of a directory to disk."""
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: _Path, content: object) -> None:
    """Write a JSON file atomically.

    Args:
        path (str or os.PathLike): The file to write.
        content: What :func:`json.dumps` takes.
    """
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")


def lock_directory(path: _Path, busy: str) -> int:
    """Lock a directory against other processes that lock it.

    Args:
        path (str or os.PathLike): The directory.
        busy (str): Message of the error if another process holds the lock.

    Returns:
        int: A file descriptor; the lock is held while any process has it open.

    Raises:
        UsageError: If another process holds the lock, or the directory can't be
            written.
    """
    try:
        descriptor = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
    except BlockingIOError:
        raise UsageError(busy) from None
    except OSError as error:
        raise UsageError(f"can't write into {path}: {error.strerror}") from None
    return descriptor


def set_aside(path: _Path) -> str:
    """Rename a directory to the first free ``PATH.broken-N``, and return that path.

    Args:
        path (str or os.PathLike): The directory.

    Raises:
        OSError: If it can't be renamed.
    """
    names = (f"{os.fspath(path)}.broken-{n}" for n in itertools.count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    os.rename(path, aside)
    return aside
