"""Images in a directory for each class, such as those of ImageNet.

``train/CLASS/`` has those to train on, ``val/CLASS/`` (or ``test/CLASS/``) those to
test on. ImageNet's own validation images lie in ``val/`` without directories, and a
file tells their classes (:mod:`chainer_crossbn.datasets.imagenet`).
"""

import hashlib
import importlib.util
import os

import numpy

from chainer_crossbn.datasets import imagenet
from chainer_crossbn.datasets.images import DatasetError, ImageDataset, take_balanced
from chainer_crossbn.datasets.index import Index, files_below
from chainer_crossbn.datasets.lazy import LazyImages

NAMES = ("folder", "imagenet")
SIDE = 224

_TRAIN = "train"
_TESTS = {"folder": ("val", "test"), "imagenet": ("val",)}
_NAMED = 5


class FileImages(LazyImages):
    """Images in files.

    Args:
        root (str): Directory.
        names (list of str): Paths below it.
        side (int): Height and width to which images are brought.
    """

    def __init__(self, root, names, side):
        super().__init__(len(names), side)
        self._root = root
        # In one piece: a million strings would take several times as much.
        encoded = [os.fsencode(name) for name in names]
        self._names = b"".join(encoded)
        self._ends = numpy.cumsum([len(name) for name in encoded], dtype=numpy.int64)

    def path(self, index):
        """Return the path of an image."""
        return self._path(self._numbers[index])

    def _path(self, number):
        start = self._ends[number - 1] if number else 0
        name = os.fsdecode(self._names[start : self._ends[number]])
        return os.path.join(self._root, name)

    def _make(self, number, random, out):
        # Pillow, which it imports, is needed for images in files alone.
        from chainer_crossbn.datasets import decoding

        path = self._path(number)
        try:
            out[...] = decoding.read(path, self._side, random)
        except decoding.BrokenImage as error:
            raise DatasetError(
                f"can't decode {path}: {error}; remove it, or leave such files out by "
                "--skip-broken"
            ) from None


def load(
    name,
    path,
    train_size=None,
    test_size=None,
    side=SIDE,
    skip_broken=False,
    threads=1,
    index=None,
    progress=None,
):
    """Find the images of a tree; see :func:`chainer_crossbn.datasets.load`.

    Classes are numbered in the order of their names, and images ordered by theirs. All
    files below a class are taken, but for hidden ones.

    Args:
        name (str): ``'folder'`` or ``'imagenet'``.
        path (str or os.PathLike): The directory that has ``train``.
        train_size (int or None): Number of training images, by default all.
        test_size (int or None): Number of test images, by default all.
        side (int): Height and width to which images are brought.
        skip_broken (bool): Whether to decode all files that are not known to be sound,
            and leave out what can't be. Otherwise the first bytes of those that were
            asked for are looked at, and nothing is left out.
        threads (int): Number of threads to decode in.
        index (Index or None): Remembers which files are sound.
        progress (callable or None): Takes lines that tell how it goes.

    Returns:
        ImageDataset: Its images are :class:`FileImages`, and its checksum is that of
        names, classes and sizes in bytes of the files.

    Raises:
        DatasetError: If there is no such tree, or files are no images.
    """
    if path is None:
        raise DatasetError(f"--dataset {name} needs --data DIR, where DIR has {_TRAIN}")
    root = os.fspath(path)
    test = next((t for t in _TESTS[name] if _is_folder(root, t)), None)
    for found, wanted in ((_is_folder(root, _TRAIN), _TRAIN), (test, _TESTS[name])):
        if not found:
            wanted = " or ".join(f"{root}/{w}" for w in numpy.atleast_1d(wanted))
            raise DatasetError(
                f"there is no directory {wanted}; --data takes the one that has "
                f"{_TRAIN}/CLASS/* and {' or '.join(_TESTS[name])}/CLASS/*"
            )
    if importlib.util.find_spec("PIL") is None:
        raise DatasetError("images in files need Pillow: pip install pillow")
    classes = _classes(root, _TRAIN)
    if not classes:
        raise DatasetError(f"{root}/{_TRAIN} has no directories, one for each class")
    parts = [_of_classes(root, _TRAIN, classes, classes)]
    test_classes = _classes(root, test)
    if name == "imagenet" and not test_classes:
        files = files_below(root, test)
        parts.append((files, imagenet.labels(root, files, classes)))
    else:
        parts.append(_of_classes(root, test, test_classes, classes))
    sizes = {_TRAIN: train_size, test: test_size}
    there = _files(parts)
    if not skip_broken:
        parts = _chosen(root, parts, sizes, len(classes))
    index = Index() if index is None else index
    wanted = _files(parts)
    broken = index.check(root, wanted, skip_broken, threads, progress, there)
    notes = ()
    if broken:
        notes = (_told(root, broken, len(wanted), skip_broken),)
    if skip_broken:
        parts = [_sound(files, labels, broken) for files, labels in parts]
        parts = _chosen(root, parts, sizes, len(classes))
    checksum = hashlib.sha256()
    result = []
    for files, labels in parts:
        _add(checksum, files, labels)
        result += [FileImages(root, [file.name for file in files], side), labels]
    return ImageDataset(name, len(classes), *result, checksum.hexdigest(), notes)


def _files(parts):
    return [file for files, _ in parts for file in files]


def _sound(files, labels, broken):
    """Return the files that are not broken, and their labels."""
    kept = [i for i, file in enumerate(files) if file.name not in broken]
    return [files[i] for i in kept], labels[kept]


def _chosen(root, parts, sizes, n_class):
    """Return of each part as many files, and labels, as were asked for."""
    chosen = []
    flags = ("--train-size", "--test-size")
    for (files, labels), (folder, size), flag in zip(parts, sizes.items(), flags):
        if not files:
            raise DatasetError(f"{root}/{folder} has no images")
        if size is not None:
            try:
                taken = take_balanced(labels, size, n_class)
            except DatasetError as error:
                raise DatasetError(f"{flag}: {error}") from None
            files, labels = [files[i] for i in taken], labels[taken]
        chosen.append((files, labels))
    return chosen


def _is_folder(root, name):
    return os.path.isdir(os.path.join(root, name))


def _classes(root, part):
    """Return the names of the directories in a part, in order."""
    path = os.path.join(root, part)
    try:
        with os.scandir(path) as entries:
            return sorted(
                e.name for e in entries if e.is_dir() and not e.name.startswith(".")
            )
    except OSError as error:
        raise DatasetError(f"can't read {path}: {error.strerror}") from None


def _of_classes(root, part, names, classes):
    """Return the files below directories of classes, and their labels, int32."""
    files, labels = [], []
    for name in names:
        if name not in classes:
            raise DatasetError(
                f"{root}/{part} has the class {name}, which {root}/{_TRAIN} has not"
            )
        found = files_below(root, f"{part}/{name}")
        files += found
        labels += [classes.index(name)] * len(found)
    return files, numpy.array(labels, numpy.int32)


def _told(root, broken, n_files, skipped):
    """Return a line that names broken files, or raise it where none may be."""
    named = ", ".join(
        f"{os.path.join(root, name)} ({reason})"
        for name, reason in sorted(broken.items())[:_NAMED]
    )
    more = f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
    counted = f"{len(broken):,} of {n_files:,} files"
    if skipped:
        return f"{counted} are left out, as they are no sound images: {named}{more}"
    raise DatasetError(
        f"{counted} are no images: {named}{more}; remove them, or leave them out by "
        "--skip-broken"
    )


def _add(checksum, files, labels):
    # The number of images keeps the two parts apart.
    checksum.update(b"%d\n" % len(files))
    for file, label in zip(files, labels.tolist()):
        # Below the part, whose name may be val or test.
        name = os.fsencode(file.name.partition("/")[2])
        checksum.update(b"%d %d %s\0" % (label, file.size, name))
