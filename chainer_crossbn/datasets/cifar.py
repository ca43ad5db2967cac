"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny
Images", 2009), in the Python or the binary version of
https://www.cs.toronto.edu/~kriz/cifar.html, or as arrays in an npz file.

The files are not trusted: archives are read as a stream and never extracted, and
:mod:`.unpickling` calls nothing.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.client
import os
import struct
import tarfile
import urllib.request
import zipfile
import zlib
from typing import Callable, NamedTuple

import numpy

from chainer_crossbn.datasets.images import (
    DatasetError,
    ImageDataset,
    from_arrays,
    select,
)
from chainer_crossbn.datasets.unpickling import (
    DeclaredArray,
    DeclaredScalar,
    MalformedPickle,
    loads,
)
from chainer_crossbn.runs.files import replacing

_MEBI = 1 << 20
# The largest file of the official archives has 149 MiB. An archive unpacks to 178 MiB.
_FILE_LIMIT = 256 * _MEBI
_ARCHIVE_LIMIT = 512 * _MEBI
_MEMBER_LIMIT = 1000

_STALL_SECONDS = 30
_PROGRESS_MEBI = 10

_PIXELS = 3 * 32 * 32
_INTEGERS = "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"


class _Source(NamedTuple):
    """How a data set is distributed."""

    name: str
    n_class: int
    archive: str
    url: str
    md5: str  # of the archive
    folder: str  # in the archive
    train: tuple[str, ...]  # files in the folder
    test: str
    labels: str  # key of the labels in each file
    binary: str  # folder of the binary version
    label_bytes: int  # per image in the binary version; the last is the label

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)

    @property
    def members(self) -> dict[str, str]:
        """From names in archives to files."""
        return {
            **{f"{self.folder}/{file}": file for file in self.files},
            **{f"{self.binary}/{file}.bin": file for file in self.files},
        }

    @property
    def archives(self) -> tuple[str, ...]:
        """Usual names of archives."""
        stems = self.archive[: -len(".tar.gz")], self.folder, self.binary
        suffixes = ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".zip"
        names = [stem + suffix for stem in stems for suffix in suffixes]
        binary = self.archive.replace("python", "binary")
        return (*dict.fromkeys((self.archive, *names, binary, f"{self.name}.npz")),)


_SOURCES = {
    "cifar10": _Source(
        name="cifar10",
        n_class=10,
        archive="cifar-10-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        labels="labels",
        binary="cifar-10-batches-bin",
        label_bytes=1,
    ),
    "cifar100": _Source(
        name="cifar100",
        n_class=100,
        archive="cifar-100-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        train=("train",),
        test="test",
        labels="fine_labels",
        binary="cifar-100-binary",
        label_bytes=2,
    ),
}

NAMES = tuple(_SOURCES)


class _Unusable(Exception):
    """Why files can't be used."""


def load(
    name: str,
    path: str | os.PathLike | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    progress: Callable[[str], object] | None = None,
) -> ImageDataset:
    """Load CIFAR-10 or CIFAR-100; see :func:`chainer_crossbn.datasets.load`.

    A note tells if the MD5 sum of an archive is not the official one.
    """
    source = _SOURCES[name]
    if path is None:
        place = _cached_archive(source, progress)
        advice = "delete it to download it again, or use --data PATH"
    else:
        place = _locate(source, os.path.expanduser(os.fspath(path)))
        advice = f"get the official {source.archive} again"
    read = _read_folder if os.path.isdir(place) else _read_archive
    try:
        batches, notes = read(source, place)
    except _Unusable as error:
        raise DatasetError(f"{_printable(place)}: {error}; {advice}") from None
    parts = []
    for files, size, option in (
        (source.train, train_size, "--train-size"),
        ((source.test,), test_size, "--test-size"),
    ):
        images, labels = map(numpy.concatenate, zip(*(batches[f] for f in files)))
        chosen = select(labels, size, source.n_class, option)
        parts.append((images.reshape(-1, 3, 32, 32)[chosen], labels[chosen]))
    train, test = parts
    return from_arrays(name, source.n_class, train, test, notes)


def _printable(text):
    """Return a path in a form that fits into a line of a message."""
    return text if text.isprintable() else ascii(text)


def _locate(source, path):
    """Return the path of an archive or of an unpacked directory."""
    if os.path.isfile(path):
        return path
    for candidate in (source, *_SOURCES.values()):
        place = _search(candidate, path)
        if place is not None and candidate is not source:
            raise _wrong_data_set(source, candidate, path)
        if place is not None:
            return place
    reason = "has no images" if os.path.isdir(path) else "is no file or directory"
    raise DatasetError(
        f"{_printable(path)} {reason} of {source.name}; --data takes {source.archive}, "
        f"{source.folder} or a directory that has either"
    )


def _search(source, directory):
    """Return the path of the batches or the archive in a directory, None without."""
    names = source.folder, source.binary
    inside = [os.path.join(directory, name) for name in names]
    folders = [
        directory,
        *inside,
        *(os.path.join(folder, name) for folder, name in zip(inside, names)),
        # In the cache of Keras 3.
        *(
            os.path.join(f"{folder}-target", name)
            for folder, name in zip(inside, names)
        ),
    ]
    counts = {folder: _count_files(source, folder) for folder in folders}
    for folder, count in counts.items():
        if count == len(source.files):
            return folder
    for place in (directory, *inside):
        for name in source.archives:
            if os.path.isfile(os.path.join(place, name)):
                return os.path.join(place, name)
    partial = [folder for folder, count in counts.items() if count]
    return next(iter([*partial, *filter(os.path.isdir, inside)]), None)


def _count_files(source, folder):
    return sum(
        any(os.path.isfile(os.path.join(folder, file + end)) for end in ("", ".bin"))
        for file in source.files
    )


def _wrong_data_set(source, other, path):
    return DatasetError(
        f"{_printable(path)} is {other.name}, not {source.name}; use --dataset "
        f"{other.name} or the {source.name} files"
    )


def _read_folder(source, folder):
    """Return the batches, a dict of images and labels per file, and notes."""
    batches = {}
    for file in source.files:
        path = os.path.join(folder, file)
        if not os.path.exists(path) and os.path.exists(f"{path}.bin"):
            path += ".bin"
        try:
            with open(path, "rb") as stream:
                content = stream.read(_FILE_LIMIT + 1)
        except OSError as error:
            raise _Unusable(f"can't read {file}: {error.strerror}") from None
        if len(content) > _FILE_LIMIT:
            raise _Unusable(f"{file} is too large")
        batches[file] = _parse(source, os.path.basename(path), content)
    return batches, ()


class _LimitedReader:
    """A stream that raises an error after a number of bytes."""

    def __init__(self, stream, limit):
        self._stream = stream
        self._left = limit

    def read(self, size):
        content = self._stream.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise _Unusable("the content is too large")
        return content


def _read_archive(source, path):
    """Return the batches, a dict of images and labels per file, and notes."""
    try:
        with open(path, "rb") as file:
            limited = _LimitedReader(file, _ARCHIVE_LIMIT)
            digest = hashlib.md5(usedforsecurity=False)
            for chunk in iter(lambda: limited.read(_MEBI), b""):
                digest.update(chunk)
        with _decompressed(path) as file:
            if zipfile.is_zipfile(path):
                batches = _read_zip(source, path)
            else:
                limited = _LimitedReader(file, _ARCHIVE_LIMIT)
                batches = _read_tar(source, path, limited)
                while limited.read(_MEBI):  # to the end, where gzip has its checksum
                    pass
    except DatasetError:
        raise
    except EOFError:
        raise _Unusable("the archive is truncated") from None
    except OSError as error:
        raise _Unusable(error.strerror or "the archive is damaged") from None
    except (
        # What tarfile and zlib raise on broken headers.
        tarfile.TarError,
        zipfile.BadZipFile,
        RuntimeError,
        MemoryError,
        zlib.error,
        struct.error,
        ValueError,
        LookupError,
        ArithmeticError,
    ):
        raise _Unusable("not a valid tar or zip archive") from None
    for file in source.files:
        if file not in batches:
            raise _Unusable(f"{source.folder}/{file} is missing")
    notes = ()
    if digest.hexdigest() != source.md5:
        notes = (
            f"{_printable(path)} is used, but its MD5 sum is not that of the official "
            f"{source.archive}",
        )
    return batches, notes


def _decompressed(path):
    """Open an archive; return a stream of its decompressed bytes."""
    with open(path, "rb") as file:
        start = file.read(3)
    if start[:2] == b"\x1f\x8b":
        return gzip.open(path)
    return bz2.open(path) if start == b"BZh" else open(path, "rb")


def _read_zip(source, path):
    batches = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MEMBER_LIMIT:
            raise _Unusable("too many members")
        if sum(member.file_size for member in members) > _ARCHIVE_LIMIT:
            raise _Unusable("the content is too large")
        if "x_train.npy" in archive.namelist():
            return _read_npz(source, path)
        for member in members:
            file = _file_of(source, path, member.filename)
            if file is None or member.is_dir():
                continue
            if file in batches:
                raise _Unusable(f"{_printable(member.filename)} is not one file")
            batches[file] = _parse(source, member.filename, archive.read(member))
    return batches


def _read_npz(source, path):
    """Return training images, as the first of the batches, and test images."""
    batches = {}
    with numpy.load(path, allow_pickle=False) as arrays:
        for part, file in (("train", source.train[0]), ("test", source.test)):
            for name in (f"x_{part}", f"y_{part}"):
                if name not in arrays:
                    raise _Unusable(f"{name} is missing")
            images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
            if images.shape[1:] == (32, 32, 3):
                images = images.transpose(0, 3, 1, 2)
            if images.shape[1:] != (3, 32, 32) or images.dtype != numpy.uint8:
                raise _Unusable(f"x_{part} has no uint8 images of 32 x 32 pixels")
            if labels.dtype.kind not in "iu" or labels.size != len(images):
                raise _Unusable(f"y_{part} has no {len(images)} integers")
            try:
                labels = _in_range(labels.ravel(), source.n_class)
            except MalformedPickle as error:
                raise _Unusable(f"y_{part} {error}") from None
            batches[file] = images.reshape(-1, _PIXELS), labels
    empty = numpy.empty((0, _PIXELS), numpy.uint8), numpy.empty(0, numpy.int32)
    return {**dict.fromkeys(source.train[1:], empty), **batches}


def _file_of(source, path, name):
    """Return which batch a member of an archive is, or None."""
    parts = name.split("/")
    for other in _SOURCES.values():
        if other is not source and {other.folder, other.binary} & set(parts[:-1]):
            raise _wrong_data_set(source, other, path)
    return source.members.get("/".join(parts[-2:]))


def _read_tar(source, path, stream):
    batches = {}
    # As a stream: all bytes pass the limit, and no header can seek back.
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_MEBI) as archive:
        for count, member in enumerate(archive):
            if count == _MEMBER_LIMIT:
                raise _Unusable("too many members")
            name = member.name[2:] if member.name.startswith("./") else member.name
            _check_member(member, name)
            file = _file_of(source, path, name)
            if file is None:
                continue
            content = archive.extractfile(member)
            if content is None or file in batches:
                raise _Unusable(f"{name} is not one file")
            batches[file] = _parse(source, name, content.read())
    return batches


def _check_member(member, name):
    """Check for what no member of an official archive has."""
    shown = _printable(name)[:200]
    if name.startswith("/") or ".." in name.split("/"):
        raise _Unusable(f"{shown} points outside the archive")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise _Unusable(f"{shown} is not a plain file")
    if not 0 <= member.size <= _FILE_LIMIT:
        raise _Unusable(f"{shown} is too large")


def _parse(source, file, content):
    parse = _parse_binary if file.endswith(".bin") else _parse_batch
    return parse(source, file, content)


def _parse_binary(source, file, content):
    """Return images and labels of a file of the binary version."""
    size = source.label_bytes + _PIXELS
    if not content or len(content) % size:
        raise _Unusable(f"{file} has {len(content)} bytes, not {size} per image")
    rows = numpy.frombuffer(content, numpy.uint8).reshape(-1, size)
    try:
        labels = _in_range(rows[:, source.label_bytes - 1], source.n_class)
    except MalformedPickle as error:
        raise _Unusable(f"{file} {error}") from None
    return rows[:, source.label_bytes :], labels


def _in_range(labels, n_class):
    """Return labels as int32; refuse those that are no classes."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < n_class:
        raise MalformedPickle(f"has labels out of 0 to {n_class - 1}")
    return labels.astype(numpy.int32)


def _parse_batch(source, file, content):
    """Return images, uint8 of shape (N, 3072), and labels, int32, of one file."""
    try:
        batch = loads(content)
        if not isinstance(batch, dict):
            raise MalformedPickle("holds no dict")
        # Keys are bytes in files of Python 2.
        batch = {
            key if isinstance(key, str) else key.decode("latin-1"): value
            for key, value in batch.items()
        }
        for key in ("data", source.labels):
            if key not in batch:
                raise MalformedPickle(f"lacks {key!r}")
        images = _pixels(batch["data"])
        labels = batch[source.labels]
        if isinstance(labels, DeclaredArray):
            labels = _integers(labels)
        if not isinstance(labels, list) or len(labels) != len(images):
            raise MalformedPickle(f"has no list of {len(images)} labels")
        labels = [_integer(label) for label in labels]
        for label in labels:
            if type(label) is not int or not 0 <= label < source.n_class:
                raise MalformedPickle(f"has labels out of 0 to {source.n_class - 1}")
    except MalformedPickle as error:
        raise _Unusable(f"{file} {error}") from None
    return images, numpy.array(labels, numpy.int32)


def _integer(label):
    """Return the value of a NumPy scalar; other objects as they are."""
    if not isinstance(label, DeclaredScalar):
        return label
    values = _from_bytes(label.dtype, label.content)
    return values[0] if len(values) == 1 else None


def _integers(array):
    """Return the integers of an array of labels."""
    state = array.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise MalformedPickle("has no array of labels")
    values = _from_bytes(state[2], state[4])
    if state[1] != (len(values),):
        raise MalformedPickle("has no vector of labels")
    return values


def _from_bytes(dtype, content):
    """Return little-endian integers."""
    name = dtype.decode("latin-1") if isinstance(dtype, bytes) else dtype
    if name not in _INTEGERS:
        raise MalformedPickle("has labels that are no integers")
    content = _as_bytes(content)
    if len(content) % int(name[1:]):
        raise MalformedPickle("has incomplete labels")
    return numpy.frombuffer(content, f"<{name}").tolist()


def _as_bytes(content):
    """Return bytes, which may be text in Latin-1."""
    if isinstance(content, str):
        try:
            content = content.encode("latin-1")
        except UnicodeEncodeError:
            raise MalformedPickle("has text in place of bytes") from None
    if not isinstance(content, bytes):
        raise MalformedPickle("has no bytes in an array")
    return content


def _pixels(array):
    """Return the images of an array, uint8 of shape (N, 3072)."""
    state = array.state if isinstance(array, DeclaredArray) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise MalformedPickle("has no array of images")
    _, shape, dtype, fortran_order, content = state
    if dtype not in ("u1", "|u1", b"u1"):
        raise MalformedPickle("has images that are not uint8")
    if isinstance(content, str):
        try:
            content = content.encode("latin-1")
        except UnicodeEncodeError:
            raise MalformedPickle("has images that are not bytes") from None
    # The declared shape has to agree with the number of bytes.
    n = len(content) // _PIXELS if isinstance(content, bytes) else 0
    if not n or shape != (n, _PIXELS) or len(content) != n * _PIXELS or fortran_order:
        raise MalformedPickle(f"has no images of shape (N, {_PIXELS})")
    return numpy.frombuffer(content, numpy.uint8).reshape(n, _PIXELS)


def _cached_archive(source, progress):
    """Return the path of the archive in Chainer's cache; download it if need be."""
    # Named as by chainer.dataset.cached_download. Importing Chainer would take seconds.
    default = os.path.join(os.path.expanduser("~"), ".chainer", "dataset")
    root = os.environ.get("CHAINER_DATASET_ROOT", default)
    url_hash = hashlib.md5(source.url.encode(), usedforsecurity=False).hexdigest()
    path = os.path.join(root, "_dl_cache", url_hash)
    if os.path.exists(path):
        return path
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path) as file:
            _download(source, file, progress)
    except (_Unusable, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
        raise DatasetError(
            f"{source.name} is not in {_printable(root)}, and its download failed "
            f"({_printable(str(reason or error or type(error).__name__))}); give "
            f"{source.archive} with --data PATH, or use --dataset synthetic, which "
            "needs no files"
        ) from None
    return path


def _download(source, file, progress):
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(source.url, timeout=_STALL_SECONDS) as response:
        limited = _LimitedReader(response, _ARCHIVE_LIMIT)
        chunks = iter(lambda: limited.read(_MEBI), b"")
        for count, chunk in enumerate(chunks):
            if progress is not None and count % _PROGRESS_MEBI == 0:
                progress(f"downloading {source.archive}: {count} MiB")
            file.write(chunk)
            digest.update(chunk)
    if digest.hexdigest() != source.md5:
        raise _Unusable(f"{source.url} is damaged or has changed")
