"""Create, lock and write the directory of one run.

It has ``args.json``, ``log``, ``snapshots``, ``model.npz`` and, last of all,
``statistics.json``.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Optional, Union

from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs import reading
from chainer_crossbn.runs.files import (
    LOCK,
    TEMPORARY,
    lock_directory,
    replacing,
    set_aside,
    write_json,
)

# The temporary directory of Chainer's LogReport.
_TEMPORARY_LOG = re.compile(r"log[a-z0-9_]{8}")


def run_path(out: str, name: str) -> str:
    """Return the path of a run.

    Args:
        out (str): Directory that contains run directories.
        name (str): Name of the run.

    Raises:
        UsageError: If the name is not that of a directory.
    """
    if name in ("", ".", "..") or os.path.basename(name) != name or "\0" in name:
        raise UsageError(f"--name {name!r} is not the name of a directory")
    return os.path.join(out, name)


def snapshots_path(path: str) -> str:
    """Return the directory of a run's snapshots."""
    return os.path.join(path, "snapshots")


def reopen(path: str) -> None:
    """Make a finished run unfinished, so that it can be trained on.

    Its model stays until there is a new one.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, "statistics.json"))


def is_finished(path: str) -> bool:
    """Return whether a run has written all its files."""
    return os.path.isfile(os.path.join(path, "statistics.json"))


def create(path: str) -> int:
    """Create and lock the directory of a run.

    Args:
        path (str): The run directory.

    Returns:
        int: A file descriptor, as :func:`lock` returns it.

    Raises:
        UsageError: If it exists already or can't be written.
    """
    if os.path.lexists(path):
        raise UsageError(
            f"{path} exists already, and runs are never overwritten; choose another "
            "--name or --out, resume it with --resume auto, or remove it"
        )
    try:
        os.makedirs(path)
    except OSError as error:
        raise UsageError(
            f"can't create {path}: {error.strerror}; choose another --out"
        ) from None
    return lock(path)


def lock(path: str) -> int:
    """Keep other processes from writing into a run directory.

    Args:
        path (str): The run directory.

    Returns:
        int: A file descriptor; the lock is held while it is open.

    Raises:
        UsageError: If another run holds the lock, or the directory can't be written.
    """
    return lock_directory(
        path,
        f"{path} is being written by another run; wait for its end, or choose another "
        "--name or --out",
    )


def create_or_replace(path: str) -> tuple[int, Optional[str]]:
    """Create and lock the directory of a run; rename one that has no snapshot yet.

    Args:
        path (str): The run directory.

    Returns:
        tuple: The file descriptor, as :func:`lock` returns it, and the new path of the
        directory that was there, or None.

    Raises:
        UsageError: If the directory that was there is no run, is being written, or
            can't be renamed.
    """
    if not os.path.lexists(path):
        return create(path), None
    if _is_empty(path):
        return lock(path), None
    read_arguments(path)
    descriptor = lock(path)
    try:
        aside = set_aside(path)
        return create(path), aside
    except OSError as error:
        raise UsageError(f"can't rename {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _is_empty(path):
    """Return whether a directory has no more than the files that locking leaves."""
    try:
        names = os.listdir(path)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    return all(name == LOCK or name.startswith(TEMPORARY) for name in names)


def check_room(path: str, size: int) -> None:
    """Check that a run directory can be written into, and has room.

    Args:
        path (str): The run directory.
        size (int): Bytes that will be written.

    Raises:
        UsageError: If not; then no file is left there.
    """
    try:
        # A file without a name disappears with the process.
        with tempfile.TemporaryFile(dir=path) as file:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise UsageError(
            f"can't write {size / 1e6:.0f} MB into {path}: {error.strerror}; make "
            "room, choose another --out, or use --snapshot-interval 0 and --no-model"
        ) from None


def clean(path: str) -> None:
    """Remove files that a killed run left incomplete; the caller holds the lock.

    Args:
        path (str): The run directory.
    """
    for name in os.listdir(path):
        entry = os.path.join(path, name)
        if name.startswith(TEMPORARY):
            os.unlink(entry)
        elif (
            _TEMPORARY_LOG.fullmatch(name)
            and os.path.isdir(entry)
            and os.listdir(entry) in ([], ["log.json"])
        ):
            shutil.rmtree(entry)


def discard(path: str) -> None:
    """Remove the directory of a run that has not started."""
    os.unlink(os.path.join(path, LOCK))
    os.rmdir(path)


def note_end(path: str, message: str, diverged: bool = False) -> None:
    """Record in ``args.json`` why a run ended before its last epoch.

    Args:
        path (str): The run directory.
        message (str): Why it ended.
        diverged (bool): Whether its loss was not finite.
    """
    record = {**reading.read_record(Path(path)), "ended": message}
    if diverged:
        record["diverged"] = True
    write_json(os.path.join(path, "args.json"), record)


def strip_record(path: Union[str, Path]) -> None:
    """Remove from ``args.json`` what identifies the machine and its user.

    These are the paths of the data and of the output, and the hosts and process IDs of
    the ranks, of which the number of nodes is kept.

    Args:
        path (str or pathlib.Path): The run directory.

    Raises:
        BrokenRun: If it is missing, unreadable or not what this package writes.
    """
    record = reading.read_record(Path(path))
    record["arguments"].update(data=None, out=None)
    ranks = record.pop("ranks", None)
    if ranks:
        record["n_nodes"] = len({rank["host"] for rank in ranks})
    write_json(os.path.join(path, "args.json"), record)


def read_arguments(path: str) -> dict[str, Any]:
    """Read the ``args.json`` of a run that is to be resumed.

    Args:
        path (str): The run directory.

    Returns:
        dict: As :func:`write_arguments` wrote it.

    Raises:
        UsageError: If it is missing, or not what this package writes.
    """
    try:
        record = reading.read_record(Path(path))
        reading.check_resumable(record)
    except reading.BrokenRun as error:
        raise UsageError(f"{path} is no run that can be resumed: {error}") from None
    return record


def write_arguments(
    path: str, arguments: dict[str, Any], details: dict[str, Any]
) -> None:
    """Write ``args.json``.

    Args:
        path (str): The run directory.
        arguments (dict): All arguments, with defaults filled in.
        details (dict): The other entries, such as ``n_ranks`` and ``dataset``.
    """
    content = {"program": reading.PROGRAM, "arguments": arguments, **details}
    write_json(os.path.join(path, "args.json"), content)


def write_statistics(
    path: str, test: dict[str, Any], layers: list[dict[str, Any]]
) -> None:
    """Write ``statistics.json``: how the statistics of batch normalization differ.

    Args:
        path (str): The run directory.
        test (dict): Final test loss and accuracy with the ranks' running statistics
            ``averaged``, with those of ``rank0``, and without the variance between
            ranks (``within``); empty where all ranks have the same.
        layers (list): As :func:`.local_statistics.deviations` returns it; empty
            without batch normalization of this package.
    """
    write_json(os.path.join(path, "statistics.json"), {"test": test, "layers": layers})


def write_profile(path: str, content: dict[str, Any]) -> None:
    """Write ``profile.json``, with one line per value of the top level.

    Args:
        path (str): The run directory.
        content (dict): As :class:`chainer_crossbn.profiling.Profiler` makes it.
    """
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in content.items()
    ]
    with replacing(os.path.join(path, "profile.json")) as file:
        file.write(("{" + ",\n ".join(lines) + "}\n").encode())
