"""Write and read snapshots: whole ones only, verified by checksums.

A run keeps its snapshots in a directory of their own. Each snapshot is a directory,
named after its iteration, with one npz file per part and a ``manifest.json`` of their
sizes and checksums, which is written last. The directory gets its final name once all
of it is on disk, so a run can be killed at any time without damage to its snapshots.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
import zipfile
from typing import Callable, Optional

import numpy

from chainer_crossbn.runs.files import replacing, sync_directory

Arrays = dict[str, numpy.ndarray]

_MANIFEST = "manifest.json"
_NAME = re.compile(r"\d{9,}")
_PARTIAL = ".partial"
_KEPT = 2
# The last ones, the most accurate, and the one that is being written.
MOST = _KEPT + 2
_CHUNK = 1 << 20
_MANIFEST_LIMIT = 16 << 20


class Damaged(Exception):
    """A snapshot differs from what was written; the message tells how."""


def write(
    folder: str,
    iteration: int,
    parts: dict[str, Arrays],
    about: dict,
    warn: Callable[[str], None] = warnings.warn,
) -> None:
    """Write a snapshot; then remove all but the last two and the most accurate.

    Args:
        folder (str): Directory of the run's snapshots; created if necessary.
        iteration (int): Iterations so far.
        parts (dict): From a name to a dict of arrays.
        about (dict): Further content of the manifest, of JSON types. ``accuracy``
            (float or None) decides which snapshot is the most accurate, the first of
            equals.
        warn (callable): Called with a line for each old snapshot that can't be removed.

    Raises:
        OSError: If it can't be written. Earlier snapshots stay.
    """
    os.makedirs(folder, exist_ok=True)
    path = _path(folder, iteration)
    partial = path + _PARTIAL
    _remove(partial)
    try:
        os.mkdir(partial)
        files = {
            f"{name}.npz": _write_arrays(os.path.join(partial, f"{name}.npz"), arrays)
            for name, arrays in parts.items()
        }
        content = {**about, "iteration": iteration, "files": files}
        manifest = {"content": content, "sha256": _digest(content)}
        with replacing(os.path.join(partial, _MANIFEST)) as file:
            file.write(json.dumps(manifest, indent=1).encode() + b"\n")
        # One that is there is damaged, and the run was resumed from one before.
        _remove(path)
        os.rename(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            _remove(partial)
        raise
    sync_directory(folder)
    sync_directory(os.path.dirname(folder))
    _prune(folder, warn)


def iterations(folder: str) -> list[int]:
    """Return the iterations of the snapshots of a run, the newest first.

    Args:
        folder (str): Directory of the run's snapshots, which need not exist.
    """
    try:
        names = os.listdir(folder)
    except OSError:  # missing or unreadable
        return []
    snapshots = [
        int(name)
        for name in names
        if _NAME.fullmatch(name)
        and os.path.lexists(os.path.join(folder, name, _MANIFEST))
    ]
    return sorted(snapshots, reverse=True)


def read(folder: str, iteration: int) -> tuple[dict, dict[str, Arrays]]:
    """Read a snapshot, and verify every byte of it.

    Args:
        folder (str): Directory of the run's snapshots.
        iteration (int): Which one.

    Returns:
        tuple: The manifest (dict), and the parts as passed to :func:`write`.

    Raises:
        Damaged: If it differs from what was written.
    """
    path = _path(folder, iteration)
    content = _read_manifest(path)
    if content["iteration"] != iteration:
        raise Damaged(f"{_MANIFEST} is of another iteration")
    parts = {}
    for name, expected in content["files"].items():
        file = os.path.join(path, name)
        try:
            if os.path.basename(name) != name or _describe(file) != expected:
                raise Damaged(f"{name} differs from what was written")
            parts[name[: -len(".npz")]] = _read_arrays(file)
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror}") from None
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile):
            raise Damaged(f"{name} is no file of arrays") from None
    return content, parts


def read_newest(
    folder: str, warn: Callable[[str], None]
) -> Optional[tuple[dict, dict[str, Arrays]]]:
    """Read the newest snapshot that is not damaged.

    Args:
        folder (str): Directory of the run's snapshots.
        warn (callable): Called with a line for each damaged snapshot that is skipped.

    Returns:
        tuple or None: As from :func:`read`; None if there is no undamaged snapshot.
    """
    for iteration in iterations(folder):
        try:
            return read(folder, iteration)
        except Damaged as error:
            warn(f"snapshot {_path(folder, iteration)} is damaged and skipped: {error}")
    return None


def _path(folder, iteration):
    return os.path.join(folder, f"{iteration:09d}")


def _digest(content):
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_arrays(path, arrays):
    """Write an npz file to the disk, and return its description."""
    if any(array.dtype.hasobject for array in arrays.values()):
        raise ValueError("arrays of objects would be pickled")
    with open(path, "xb") as file:
        numpy.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    return _describe(path)


def _describe(path):
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _read_arrays(path):
    with zipfile.ZipFile(path) as archive:
        if any(m.compress_type != zipfile.ZIP_STORED for m in archive.infolist()):
            raise ValueError("a snapshot is not compressed")
    with numpy.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_manifest(path):
    try:
        with open(os.path.join(path, _MANIFEST), "rb") as file:
            manifest = json.loads(file.read(_MANIFEST_LIMIT))
        content = manifest["content"]
        if manifest["sha256"] != _digest(content):
            raise Damaged(f"{_MANIFEST} differs from what was written")
        files = content["files"]
        if not all(name.endswith(".npz") for name in files):
            raise ValueError("other files")
        return content
    except OSError as error:
        raise Damaged(f"{_MANIFEST}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{_MANIFEST} is no manifest") from None


def _prune(folder, warn):
    accuracies = {}
    for iteration in reversed(iterations(folder)):
        with contextlib.suppress(Damaged):
            content = _read_manifest(_path(folder, iteration))
            accuracies[iteration] = content.get("accuracy")
    kept = set(sorted(accuracies)[-_KEPT:])
    rated = [i for i, accuracy in accuracies.items() if accuracy is not None]
    if rated:
        kept.add(max(rated, key=accuracies.get))
    kept = {os.path.basename(_path(folder, iteration)) for iteration in kept}
    for name in os.listdir(folder):
        if _NAME.fullmatch(name.removesuffix(_PARTIAL)) and name not in kept:
            path = os.path.join(folder, name)
            try:
                _remove(path)
            except OSError as error:
                warn(f"can't remove the old snapshot {path}: {error.strerror}")


def _remove(path):
    """Remove a snapshot, the manifest first, so that no part of it looks whole."""
    if not os.path.lexists(path):
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, _MANIFEST))
    shutil.rmtree(path)
