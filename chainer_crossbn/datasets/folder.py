"""Images in files: a directory per class, or a list of files and their classes."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import time
from typing import Callable

import numpy

from chainer_crossbn.datasets import decoding
from chainer_crossbn.datasets.images import DatasetError, ImageDataset, select
from chainer_crossbn.datasets.lazy import LazyImages

# ImageNet is such a directory. Under its own name, records of runs tell what it is.
NAMES = ("folder", "imagenet")
SIDE = 224

_TRAIN = "train"
_TESTS = ("val", "test")
_CLASS_LIMIT = 1_000_000
# Broken files that a note names.
_NAMED = 5

_CHECKED_AT_ONCE = 256
_PROGRESS_SECONDS = 5

# Files between two lines on the progress of a listing.
_LISTED = 100_000


class FileImages(LazyImages):
    """Images in files.

    Args:
        root (str): Directory.
        names (list of str): Paths of the files, relative to the directory.
        side (int): Height and width of the images after resizing and cropping.
    """

    def __init__(self, root: str, names: list[str], side: int) -> None:
        super().__init__(len(names), side)
        self._root = root
        # An array takes less memory than a million strings.
        self._names = numpy.array([os.fsencode(name) for name in names], bytes)

    def name(self, index: int) -> bytes:
        """Return the path of a file, relative to the directory."""
        return bytes(self._names[self._numbers[index]])

    def path(self, index: int) -> str:
        """Return the path of a file."""
        return os.path.join(self._root, os.fsdecode(self.name(index)))

    def _make(self, number, random, out):
        path = os.path.join(self._root, os.fsdecode(bytes(self._names[number])))
        try:
            out[...] = decoding.read(path, self._side, random)
        except decoding.BrokenImage as error:
            raise DatasetError(
                f"can't decode {path}: {error}; remove the file, or leave out such "
                "files with --skip-broken"
            ) from None


def load(
    name: str,
    path: str | os.PathLike | None,
    train_size: int | None = None,
    test_size: int | None = None,
    side: int = SIDE,
    skip_broken: bool = False,
    threads: int = 1,
    progress: Callable[[str], object] | None = None,
) -> ImageDataset:
    """List the images of a directory; see :func:`chainer_crossbn.datasets.load`.

    The directory has ``train.txt`` or ``train/CLASS/*`` for training, and one of
    ``val.txt``, ``val/CLASS/*``, ``test.txt`` and ``test/CLASS/*`` for testing; the
    first of these is taken.

    A list has a line ``path label`` per image, as those of Chainer's ImageNet example
    do. Paths are relative to the directory, labels count from 0, and the order of the
    images is that of the lines.

    Class directories are numbered in the order of their names. All files below them are
    images, except hidden ones, in the order of their paths.

    No image is decoded, unless ``skip_broken`` asks for it. The checksum is that of
    names, labels and sizes in bytes of the files.
    """
    if path is None:
        raise DatasetError(
            f"--dataset {name} needs --data DIR, where DIR has {_TRAIN}/CLASS/* or "
            f"{_TRAIN}.txt"
        )
    splits, n_class = _list_splits(os.fspath(path), side, progress)
    notes = ()
    if skip_broken:
        splits, notes = _without_broken(splits, threads, progress)
    checksum = hashlib.sha256()
    parts = []
    options = (train_size, "--train-size"), (test_size, "--test-size")
    for (images, labels), (size, option) in zip(splits, options):
        chosen = select(labels, size, n_class, option)
        images, labels = images[chosen], labels[chosen]
        _update(checksum, images, labels)
        parts.append((images, labels))
    (train_images, train_labels), (test_images, test_labels) = parts
    return ImageDataset(
        name=name,
        n_class=n_class,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        checksum=checksum.hexdigest(),
        notes=notes,
    )


def _list_splits(root, side, progress):
    """Return images and labels of both splits, and the number of classes."""
    train, test = _find(root, (_TRAIN,)), _find(root, _TESTS)
    classes = None
    if os.path.isdir(train):
        classes = {name: label for label, name in enumerate(_subdirectories(train))}
    images, labels = _list_split(train, classes, side, progress)
    n_class = int(labels.max()) + 1 if classes is None else len(classes)
    test_images, test_labels = _list_split(test, classes, side, progress)
    if test_labels.max() >= n_class:
        raise DatasetError(
            f"{test} has the label {test_labels.max()}; those of the training images "
            f"are 0 to {n_class - 1}"
        )
    return [(images, labels), (test_images, test_labels)], n_class


def _list_split(path, classes, side, progress):
    """Return images and labels of a list or a directory.

    ``classes`` maps class directories to labels. It is None if the training images are
    in a list.
    """
    if os.path.isfile(path):
        names, labels = _read_list(path)
        root = os.path.dirname(path)
    elif classes is None:
        raise DatasetError(f"{_TRAIN}.txt needs a list for testing, too: {path}.txt")
    else:
        names, labels = _list_directories(path, classes, progress)
        root = path
    if not names:
        raise DatasetError(
            f"{path} has no images; give it a directory for each class, or a list of "
            f"images ({_TRAIN}.txt, {_TESTS[0]}.txt) in their place"
        )
    return FileImages(root, names, side), numpy.array(labels, numpy.int32)


def _find(root, names):
    """Return the path of the list or the directory of a split."""
    for name in names:
        for path in (os.path.join(root, f"{name}.txt"), os.path.join(root, name)):
            if os.path.exists(path):
                return path
    raise DatasetError(
        f"there is no directory {os.path.join(root, names[0])}; --data takes the "
        f"directory that has {_TRAIN}/CLASS/* and {_TESTS[0]}/CLASS/*, or the lists "
        f"{_TRAIN}.txt and {_TESTS[0]}.txt"
    )


def _read_list(path):
    """Return the paths and labels of a list."""
    names, labels = [], []
    try:
        with open(path, "rb") as lines:
            for line in lines:
                # Paths may have spaces.
                name, label = line.rsplit(maxsplit=1)
                if not label.isdigit() or int(label) >= _CLASS_LIMIT or b"\0" in name:
                    raise ValueError(line)
                labels.append(int(label))
                names.append(os.fsdecode(name))
    except OSError as error:
        raise DatasetError(f"can't read {path}: {error.strerror}") from None
    except ValueError:
        raise DatasetError(
            f"{path}: line {len(names) + 1} is not a path and a label from 0 to "
            f"{_CLASS_LIMIT - 1}"
        ) from None
    return names, labels


def _subdirectories(path):
    """Return the names of the directories in a directory, in order."""
    _, folders, _ = next(os.walk(path, onerror=_raise))
    return sorted(name for name in folders if not name.startswith("."))


def _raise(error):
    raise DatasetError(f"can't read {error.filename}: {error.strerror}")


def _list_directories(path, classes, progress):
    """Return the files below the class directories in a directory, and their labels."""
    names, labels = [], []
    for name in _subdirectories(path):
        if name not in classes:
            raise DatasetError(
                f"{path} has the class {name}, which the training images lack"
            )
        members = []
        top = os.path.join(path, name)
        for folder, subfolders, files in os.walk(top, onerror=_raise, followlinks=True):
            subfolders[:] = [f for f in subfolders if not f.startswith(".")]
            prefix = folder[len(path) + 1 :]
            members += [f"{prefix}/{f}" for f in files if not f.startswith(".")]
        if (len(names) + len(members)) // _LISTED > len(names) // _LISTED and progress:
            progress(f"listing {path}: {len(names) + len(members)} files")
        names += sorted(members)
        labels += [classes[name]] * len(members)
    return names, labels


def _without_broken(splits, threads, progress):
    """Return the splits without broken files, and a note that names these."""
    sound, broken = [], []
    for images, labels in splits:
        reasons = _check(images, threads, progress)
        kept = [i for i, reason in enumerate(reasons) if reason is None]
        if not kept:
            raise DatasetError(f"can't decode {images.path(0)}, nor any file beside it")
        sound.append((images[kept], labels[kept]))
        broken += [
            f"{images.path(i)} ({reason})"
            for i, reason in enumerate(reasons)
            if reason is not None
        ]
    if not broken:
        return splits, ()
    n_files = sum(len(labels) for _, labels in splits)
    more = f", and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
    note = (
        f"{len(broken):,} of {n_files:,} files are left out, because they can't be "
        f"decoded: {', '.join(broken[:_NAMED])}{more}"
    )
    return sound, (note,)


def _check(images, threads, progress):
    """Return why each image can't be decoded, None for those that can."""
    reasons = []
    reported = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(images), _CHECKED_AT_ONCE):
            indices = range(start, min(start + _CHECKED_AT_ONCE, len(images)))
            reasons += pool.map(decoding.check, map(images.path, indices))
            if progress and time.monotonic() - reported > _PROGRESS_SECONDS:
                reported = time.monotonic()
                progress(f"checking images: {len(reasons):,} of {len(images):,}")
    return reasons


def _update(checksum, images, labels):
    # The number of images separates the two parts.
    checksum.update(b"%d\n" % len(labels))
    for index, label in enumerate(labels.tolist()):
        try:
            size = os.stat(images.path(index)).st_size
        except OSError as error:
            raise DatasetError(
                f"can't read {error.filename}: {error.strerror}; remove it, or leave "
                "out such files with --skip-broken"
            ) from None
        checksum.update(b"%d %d %s\0" % (label, size, images.name(index)))
