"""Which files of a directory are images, remembered from one run to the next.

Files are listed and their sizes and times taken at every start. Those that were sound
and have the same size and time as then are not opened again.
"""

import concurrent.futures
import hashlib
import os
import time
import zipfile
from typing import NamedTuple

import numpy

from chainer_crossbn.datasets.images import DatasetError
from chainer_crossbn.runs.files import replacing

# How far a file has been looked at.
_HEADER, _DECODED = 1, 2
# Files of this side are decoded to see whether they can be.
_SIDE = 32
_DEPTH_LIMIT = 16
# Opening a file is waiting for a disk, most of all.
_OPENING_THREADS = 16
_AT_ONCE = 4096
_PROGRESS_SECONDS = 5
_VERSION = 1


class File(NamedTuple):
    """A file as it was found.

    Attributes:
        name (str): Path below the root, with slashes.
        size (int): Bytes; -1 where it can't be told.
        time (int): Time of its last change in nanoseconds.
    """

    name: str
    size: int
    time: int


class Index:
    """Which files of a directory are images.

    Args:
        folder (str or None): Where what is found is kept, and looked up; None: nowhere.
    """

    def __init__(self, folder=None):
        self._folder = folder
        self._found = None

    def check(self, root, files, decode, threads, progress=None, others=()):
        """Find out which files are no sound images.

        Args:
            root (str): The directory.
            files (list of File): Below it, those to check.
            decode (bool): Whether to decode each of them; else their first bytes are
                looked at.
            threads (int): Number of threads to decode in.
            progress (callable or None): Takes lines that tell how it goes.
            others (list of File): Those below it of which what is known is kept.

        Returns:
            dict: From the name of each broken file to what is wrong with it.
        """
        level = _DECODED if decode else _HEADER
        known = self._read(root)
        sound = _known_of(files, known, level)
        unknown = [file for file in files if file.name not in sound]
        sound.update(_known_of(others, known, _HEADER))
        broken = {}
        self._found = (root, sound) if unknown or len(known) > len(sound) else None
        del known
        look = _decode if decode else _open
        threads = threads if decode else max(threads, _OPENING_THREADS)
        shown = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(unknown), _AT_ONCE):
                some = unknown[start : start + _AT_ONCE]
                reasons = pool.map(look, (os.path.join(root, f.name) for f in some))
                for count, (file, reason) in enumerate(zip(some, reasons), start + 1):
                    if reason is None:
                        sound[file.name] = (file.size, file.time, level)
                    else:
                        broken[file.name] = reason
                    if progress and time.monotonic() - shown > _PROGRESS_SECONDS:
                        shown = time.monotonic()
                        progress(f"checking images: {count:,} of {len(unknown):,}")
        return broken

    def save(self):
        """Keep what the last :meth:`check` has found, where that is not kept already.

        Raises:
            OSError: If it can't be written.
        """
        if self._folder is None or self._found is None:
            return
        root, sound = self._found
        os.makedirs(self._folder, exist_ok=True)
        numbers = numpy.array(list(sound.values()), numpy.int64).reshape(-1, 3)
        names = numpy.frombuffer(os.fsencode("\0".join(sound)), numpy.uint8)
        with replacing(self._path(root)) as file:
            numpy.savez(file, version=_VERSION, names=names, numbers=numbers)
        self._found = None

    def _path(self, root):
        key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()
        return os.path.join(self._folder, f"{key[:16]}.npz")

    def _read(self, root):
        """Return a dict from the names of sound files to size, time and level."""
        if self._folder is None:
            return {}
        try:
            with numpy.load(self._path(root), allow_pickle=False) as arrays:
                if arrays["version"] != _VERSION:
                    return {}
                names = os.fsdecode(arrays["names"].tobytes()).split("\0")
                numbers = arrays["numbers"].tolist()
        except (OSError, EOFError, LookupError, ValueError, zipfile.BadZipFile):
            return {}  # none there, or damaged: it will be made anew
        return {name: tuple(seen) for name, seen in zip(names, numbers)}


def _known_of(files, known, level):
    """Return what is known of files that have not changed, where it is enough."""
    found = {}
    for file in files:
        size, time_of_change, seen = known.get(file.name, (None, None, 0))
        if (size, time_of_change) == file[1:] and seen >= level:
            found[file.name] = known[file.name]
    return found


# Pillow, which decoding imports, is needed for images in files alone.
def _open(path):
    """Return what is wrong with a file, None if it seems sound."""
    from chainer_crossbn.datasets import decoding

    try:
        decoding.check(path)
    except decoding.BrokenImage as error:
        return str(error)
    return None


def _decode(path):
    from chainer_crossbn.datasets import decoding

    try:
        decoding.read(path, _SIDE)
    except decoding.BrokenImage as error:
        return str(error)
    return None


def files_below(root, folder):
    """List the files of a directory and of those in it, but for hidden ones.

    Args:
        root (str): What names are relative to.
        folder (str): The directory, relative to the root.

    Returns:
        list of File: Ordered by name.

    Raises:
        DatasetError: If a directory can't be read, or is too deep.
    """
    found = []
    _walk(root, folder, found, _DEPTH_LIMIT)
    found.sort()
    return found


def _walk(root, folder, found, depth):
    path = os.path.join(root, folder)
    if depth == 0:
        raise DatasetError(f"{path} is more than {_DEPTH_LIMIT} directories deep")
    try:
        with os.scandir(path) as entries:
            entries = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DatasetError(f"can't read {path}: {error.strerror}") from None
    for entry in entries:
        name = f"{folder}/{entry.name}"
        try:
            if entry.is_dir():
                _walk(root, name, found, depth - 1)
                continue
            status = entry.stat()
            found.append(File(name, status.st_size, status.st_mtime_ns))
        except OSError:  # a link to nowhere
            found.append(File(name, -1, 0))
