"""The directory of one run.

It has ``args.json``, ``log``, ``snapshots``, ``model.npz`` and, last of all,
``statistics.json``.
"""

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import tempfile

import chainer

from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs.files import TEMPORARY, replacing

_PROGRAM = "chainer_crossbn"
_LOCK = ".lock"
# Chainer's LogReport writes there.
_LOG_LEFT = re.compile(r"log[a-z0-9_]{8}")
_RECORD_LIMIT = 16 << 20


def path_of(out, name):
    """Return the path of a run.

    Args:
        out (str): Directory that gathers runs.
        name (str): Name of the run.

    Raises:
        UsageError: If the name is none of a directory.
    """
    if name in ("", ".", "..") or os.path.basename(name) != name or "\0" in name:
        raise UsageError(f"--name {name!r} is not the name of a directory")
    return os.path.join(out, name)


def snapshots_of(path):
    """Return the directory of a run's snapshots."""
    return os.path.join(path, "snapshots")


def is_finished(path):
    """Tell whether a run has written all that it writes."""
    return os.path.isfile(os.path.join(path, "statistics.json"))


def reopen(path):
    """Make a finished run unfinished, so that it can be trained on.

    Its model stays until there is a new one.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, "statistics.json"))


def create(path):
    """Create the directory of a run, and keep others from writing into it.

    Args:
        path (str): Where it is to be.

    Returns:
        int: A file descriptor; while it is open, :func:`lock` refuses others.

    Raises:
        UsageError: If it exists already or can't be written.
    """
    if os.path.lexists(path):
        raise UsageError(
            f"{path} exists already, and runs are never overwritten; choose another "
            "--name or --out, go on with it by --resume auto, or remove it"
        )
    try:
        os.makedirs(path)
    except OSError as error:
        raise UsageError(
            f"can't create {path}: {error.strerror}; choose another --out"
        ) from None
    return lock(path)


def lock(path):
    """Keep other runs from writing into a run directory, as long as this one lives.

    Args:
        path (str): The run directory.

    Returns:
        int: A file descriptor that holds the lock while it is open.

    Raises:
        UsageError: If another run has it, or if it can't be written.
    """
    try:
        descriptor = os.open(
            os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
    except BlockingIOError:
        raise UsageError(
            f"{path} is being written by another run; wait for its end, or choose "
            "another --name or --out"
        ) from None
    except OSError as error:
        raise UsageError(f"can't write into {path}: {error.strerror}") from None
    return descriptor


def create_anew(path):
    """Create the directory of a run, in place of one that got nowhere if there is one.

    Args:
        path (str): Where it is to be.

    Returns:
        tuple: As :func:`create` returns it, and the path to which what was there has
        been renamed, or None.

    Raises:
        UsageError: If what is there is no run, or being written, or can't be renamed.
    """
    if not os.path.lexists(path):
        return create(path), None
    if _holds_nothing(path):
        return lock(path), None
    read_arguments(path)
    descriptor = lock(path)
    try:
        aside = next(
            name
            for name in (f"{path}.broken-{i}" for i in itertools.count(1))
            if not os.path.lexists(name)
        )
        os.rename(path, aside)
        return create(path), aside
    except OSError as error:
        raise UsageError(f"can't rename {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _holds_nothing(path):
    """Tell whether a directory has no more than what a run begins with."""
    try:
        names = os.listdir(path)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    return all(name == _LOCK or name.startswith(TEMPORARY) for name in names)


def check_room(path, size):
    """Check that a run directory can be written into, and has room.

    Args:
        path (str): The run directory.
        size (int): Bytes that are going to be written.

    Raises:
        UsageError: If not; then nothing is left there.
    """
    try:
        # Without a name it goes with the process, whatever happens.
        with tempfile.TemporaryFile(dir=path) as file:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise UsageError(
            f"can't write {size / 1e6:.0f} MB into {path}: {error.strerror}; make "
            "room, choose another --out, or use --snapshot-interval 0 and --no-model"
        ) from None


def clean(path):
    """Remove what a kill has left half-written; the caller has the lock.

    Args:
        path (str): The run directory.
    """
    for name in os.listdir(path):
        whole = os.path.join(path, name)
        if name.startswith(TEMPORARY):
            os.unlink(whole)
        elif (
            _LOG_LEFT.fullmatch(name)
            and os.path.isdir(whole)
            and os.listdir(whole) in ([], ["log.json"])
        ):
            shutil.rmtree(whole)


def discard(path):
    """Remove the directory of a run that has not begun."""
    os.unlink(os.path.join(path, _LOCK))
    os.rmdir(path)


def note_end(path, message, diverged=False):
    """Note in ``args.json`` how a run has ended before its last epoch.

    Args:
        path (str): The run directory.
        message (str): Why it ended.
        diverged (bool): Whether its loss was not finite.
    """
    record = {**read_arguments(path), "ended": message}
    if diverged:
        record["diverged"] = True
    _write_json(os.path.join(path, "args.json"), record)


def read_arguments(path):
    """Read ``args.json``.

    Args:
        path (str): Directory of the run.

    Returns:
        dict: As :func:`write_arguments` wrote it.

    Raises:
        UsageError: If it is not there, or is something else.
    """
    file = os.path.join(path, "args.json")
    try:
        with open(file, "rb") as opened:
            record = json.loads(opened.read(_RECORD_LIMIT))
        sound = (
            record["program"] == _PROGRAM
            and isinstance(record["arguments"], dict)
            and {"bn", "model", "dataset"} <= set(record["arguments"])
            and isinstance(record["n_ranks"], int)
            and isinstance(record["dataset"], dict)
            and isinstance(record["versions"], dict)
            and all(isinstance(rank, dict) for rank in record["ranks"])
        )
    except OSError as error:
        raise UsageError(
            f"{path} is no run to go on with: args.json: {error.strerror}"
        ) from None
    except (ValueError, LookupError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise UsageError(f"{path} is no run to go on with: args.json is damaged")
    return record


def write_arguments(path, arguments, details):
    """Write ``args.json``.

    Args:
        path (str): Directory of the run.
        arguments (dict): All arguments, defaults filled in.
        details (dict): What else there is to know of the run.
    """
    content = {
        "program": _PROGRAM,
        "arguments": arguments,
        **details,
    }
    _write_json(os.path.join(path, "args.json"), content)


def write_statistics(path, test, layers):
    """Write ``statistics.json``: what the statistics of batch normalization are like.

    Args:
        path (str): Directory of the run.
        test (dict): Final test loss and accuracy with the ranks' running statistics
            ``averaged``, with those of ``rank0``, and without the variance between
            ranks (``within``); empty where all ranks have the same.
        layers (list): As :func:`.local_statistics.deviations` returns
            it; empty without batch normalization of this package.
    """
    _write_json(os.path.join(path, "statistics.json"), {"test": test, "layers": layers})


def write_profile(path, content):
    """Write ``profile.json``, in one line a value of the top level.

    Args:
        path (str): Directory of the run.
        content (dict): As :class:`chainer_crossbn.profiling.Profiler` makes it.
    """
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in content.items()
    ]
    with replacing(os.path.join(path, "profile.json")) as file:
        file.write(("{" + ",\n ".join(lines) + "}\n").encode())


def write_model(path, model):
    """Write ``model.npz``, parameters and running statistics, whole or not at all.

    Args:
        path (str): Directory of the run.
        model (chainer.Link): The trained model.
    """
    with replacing(os.path.join(path, "model.npz")) as file:
        # Weights hardly get smaller, and compressing them takes seconds.
        chainer.serializers.save_npz(file, model, compression=False)


def _write_json(path, content):
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
