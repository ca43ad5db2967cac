"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny
Images", 2009), as distributed in their Python version at
https://www.cs.toronto.edu/~kriz/cifar.html.

Files may come from anywhere, so nothing in them is trusted: archives are read as a
stream and never extracted, and pickles are interpreted here, without calling anything.
"""

import contextlib
import enum
import gzip
import hashlib
import http.client
import os
import pickletools
import struct
import tarfile
import tokenize
import urllib.request
import uuid
import zipfile
import zlib
from typing import NamedTuple

import numpy

from chainer_crossbn.datasets.images import DatasetError, make, take_balanced

_MEBI = 1 << 20
# The largest file of the official archives has 149 MiB, an archive 178 MiB unpacked.
_FILE_LIMIT = 256 * _MEBI
_ARCHIVE_LIMIT = 512 * _MEBI
_MEMBER_LIMIT = 1000
# The longest official pickle has some 200,000 instructions.
_INSTRUCTION_LIMIT = 2_000_000
_KEY_LIMIT = 100

_STALL_SECONDS = 30
_CHUNK = 1 << 18

_PIXELS = 3 * 32 * 32


class _Source(NamedTuple):
    """How a data set is distributed."""

    name: str
    n_class: int
    archive: str
    md5: str
    url: str
    folder: str
    train: tuple
    test: str
    labels: str
    chainer_name: str


_SOURCES = {
    "cifar10": _Source(
        name="cifar10",
        n_class=10,
        archive="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        labels="labels",
        chainer_name="cifar-10",
    ),
    "cifar100": _Source(
        name="cifar100",
        n_class=100,
        archive="cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        folder="cifar-100-python",
        train=("train",),
        test="test",
        labels="fine_labels",
        chainer_name="cifar-100",
    ),
}

NAMES = tuple(_SOURCES)


def load(name, path=None, train_size=None, test_size=None, progress=None):
    """Load CIFAR-10 or CIFAR-100; see :func:`chainer_crossbn.datasets.load`.

    Args:
        name (str): ``'cifar10'`` or ``'cifar100'``.
        path (str, os.PathLike or None): Archive, unpacked directory, or a directory
            that holds either. By default the cache of :mod:`chainer.datasets`, which is
            filled by a download if need be.
        train_size (int or None): Number of training images, by default all.
        test_size (int or None): Number of test images, by default all.
        progress (callable or None): Takes lines that tell how a download goes.

    Returns:
        ImageDataset: A note tells if an archive has another MD5 sum than the official
        one.

    Raises:
        DatasetError: If there are no such files or they are not sound.
    """
    source = _SOURCES[name]
    if path is None:
        train, test, notes = _read_cache(source, progress)
    else:
        train, test, notes = _read_path(source, os.fspath(path))
    train = _take(train, train_size, source.n_class, "--train-size")
    test = _take(test, test_size, source.n_class, "--test-size")
    return make(name, source.n_class, train, test, notes)


def _take(part, size, n_class, flag):
    images, labels = part
    images = images.reshape(-1, 3, 32, 32)
    if size is None:
        return images, labels
    try:
        chosen = take_balanced(labels, size, n_class)
    except DatasetError as error:
        raise DatasetError(f"{flag}: {error}") from None
    return images[chosen], labels[chosen]


def _join(source, batches, notes):
    """Return training part, test part and notes from what the files hold."""
    train, test = (
        tuple(numpy.concatenate(arrays) for arrays in zip(*(batches[f] for f in files)))
        for files in (source.train, (source.test,))
    )
    return train, test, notes


def _shown(text):
    """Return a name such that it takes one line and can be printed."""
    return text if text.isprintable() else ascii(text)


# Finding files


def _read_path(source, path):
    shown = _shown(path)
    if os.path.isfile(path):
        return _read_archive(source, path)
    if not os.path.isdir(path):
        raise DatasetError(
            f"there is no file or directory {shown}; --data takes {source.archive}, "
            f"{source.folder} or a directory that holds either"
        )
    folder = os.path.join(path, source.folder)
    archive = os.path.join(path, source.archive)
    files = (*source.train, source.test)
    if any(os.path.isfile(os.path.join(path, file)) for file in files):
        return _read_folder(source, path)
    if os.path.isdir(folder):
        return _read_folder(source, folder)
    if os.path.isfile(archive):
        return _read_archive(source, archive)
    for other in _SOURCES.values():
        files = (other.archive, other.train[0], f"{other.folder}/{other.train[0]}")
        if any(os.path.isfile(os.path.join(path, file)) for file in files):
            raise _wrong_data_set(source, other, shown)
    raise DatasetError(
        f"directory {shown} holds neither {source.folder} nor {source.archive}; give "
        "--data the place of one of them"
    )


def _wrong_data_set(source, other, shown):
    return DatasetError(
        f"{shown} is {other.name}, not {source.name}; use --dataset {other.name} or "
        f"the {source.name} files"
    )


def _read_folder(source, folder):
    advice = f"unpack the official {source.archive} again"
    batches = {}
    for file in (*source.train, source.test):
        path = os.path.join(folder, file)
        shown = _shown(path)
        if not os.path.isfile(path):
            raise DatasetError(f"there is no file {shown}; {advice}")
        try:
            with open(path, "rb") as opened:
                content = opened.read(_FILE_LIMIT + 1)
        except OSError as error:
            raise DatasetError(
                f"can't read {shown}: {error.strerror}; {advice}"
            ) from None
        if len(content) > _FILE_LIMIT:
            raise DatasetError(f"{shown} is too large for {source.name}; {advice}")
        batches[file] = _parse_batch(source, content, shown, advice)
    return _join(source, batches, ())


# Archives


class _LimitedReader:
    """A stream that ends in an error after so many bytes."""

    def __init__(self, stream, limit, message):
        self._stream = stream
        self._left = limit
        self._message = message

    def read(self, size):
        content = self._stream.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise DatasetError(self._message)
        return content


def _read_archive(source, path, advice=None):
    shown = _shown(path)
    advice = advice or f"get the official {source.archive} again"
    too_large = f"{shown} is too large for {source.name}; {advice}"
    try:
        if os.path.getsize(path) > _ARCHIVE_LIMIT:
            raise DatasetError(too_large)
        notes = ()
        if _md5(path) != source.md5:
            notes = (
                f"{shown} is used, but its MD5 sum differs from that of the official "
                f"{source.archive}",
            )
        with gzip.open(path) as stream:
            limited = _LimitedReader(stream, _ARCHIVE_LIMIT, too_large)
            batches = _read_tar(source, limited, shown, advice)
            while limited.read(_CHUNK):  # to the end, where gzip keeps its checksum
                pass
    except DatasetError:
        raise
    except EOFError:
        raise DatasetError(f"{shown} is cut short; {advice}") from None
    except OSError as error:
        reason = error.strerror or "it is damaged or no gzip file"
        raise DatasetError(f"can't read {shown}: {reason}; {advice}") from None
    except (
        # What tarfile and zlib raise on broken headers.
        tarfile.TarError,
        zlib.error,
        struct.error,
        ValueError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ):
        raise DatasetError(f"{shown} is no sound tar archive; {advice}") from None
    for file in (*source.train, source.test):
        if file not in batches:
            raise DatasetError(f"{shown} lacks {source.folder}/{file}; {advice}")
    return _join(source, batches, notes)


def _md5(path):
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as opened:
        for chunk in iter(lambda: opened.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _read_tar(source, stream, shown, advice):
    wanted = {f"{source.folder}/{file}": file for file in (*source.train, source.test)}
    batches = {}
    # As a stream, so that all bytes pass the limit and nothing can seek in circles.
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
        for count, member in enumerate(archive):
            name = member.name[2:] if member.name.startswith("./") else member.name
            inside = f"{_shown(name)[:200]} in {shown}"
            if count == _MEMBER_LIMIT:
                raise DatasetError(f"{shown} has too many members; {advice}")
            if name.startswith("/") or ".." in name.split("/"):
                raise DatasetError(f"{inside} points outside the archive; {advice}")
            if not (member.isdir() or member.isreg()) or member.issparse():
                raise DatasetError(f"{inside} is no plain file; {advice}")
            for other in _SOURCES.values():
                if other is not source and name.split("/")[0] == other.folder:
                    raise _wrong_data_set(source, other, shown)
            if name not in wanted:
                continue
            if not member.isreg() or not 0 <= member.size <= _FILE_LIMIT:
                raise DatasetError(f"{inside} has a wrong size or type; {advice}")
            file = wanted[name]
            if file in batches:
                raise DatasetError(f"{inside} is there twice; {advice}")
            content = archive.extractfile(member).read(member.size)
            if len(content) < member.size:
                raise DatasetError(f"{shown} is cut short; {advice}")
            batches[file] = _parse_batch(source, content, inside, advice)
    return batches


# Chainer's cache, and the download into it

_CACHE_ADVICE = "delete it to download it again, or use --data PATH"


def _cache_root():
    """Return the dataset directory, found as Chainer does, without loading Chainer."""
    default = os.path.join(os.path.expanduser("~"), ".chainer", "dataset")
    return os.environ.get("CHAINER_DATASET_ROOT", default)


def _read_cache(source, progress):
    root = _cache_root()
    # The names that chainer.dataset.cached_download and chainer.datasets.get_cifar10
    # give to the archive and to the arrays in it.
    url_hash = hashlib.md5(source.url.encode(), usedforsecurity=False).hexdigest()
    archive = os.path.join(root, "_dl_cache", url_hash)
    arrays = os.path.join(root, "pfnet", "chainer", "cifar", source.chainer_name)
    arrays += ".npz"
    if not os.path.exists(archive):
        if os.path.exists(arrays):
            return _read_npz(source, arrays)
        _download(source, archive, progress)
    return _read_archive(source, archive, _CACHE_ADVICE)


def _read_npz(source, path):
    shown = _shown(path)
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.file_size > _FILE_LIMIT for member in archive.infolist()):
                raise DatasetError(
                    f"{shown} is too large for {source.name}; {_CACHE_ADVICE}"
                )
        with numpy.load(path, allow_pickle=False) as archive:
            for key in ("train_x", "train_y", "test_x", "test_y"):
                arrays[key] = archive[key]
    except DatasetError:
        raise
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        MemoryError,
        RuntimeError,
        SyntaxError,
        tokenize.TokenError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise DatasetError(f"can't read {shown}; {_CACHE_ADVICE}") from None
    parts = []
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_x"], arrays[f"{part}_y"]
        if (
            images.dtype != numpy.uint8
            or images.shape != (labels.size, _PIXELS)
            or labels.dtype.kind not in "iu"
            or labels.ndim != 1
        ):
            raise DatasetError(f"{shown} has a wrong shape or dtype; {_CACHE_ADVICE}")
        if not labels.size or not 0 <= labels.min() <= labels.max() < source.n_class:
            raise DatasetError(f"{shown} has wrong labels; {_CACHE_ADVICE}")
        parts.append((numpy.ascontiguousarray(images), labels.astype(numpy.int32)))
    return (*parts, ())


def _download(source, target, progress):
    ways_out = (
        f"give {source.archive} with --data PATH or use --dataset synthetic, which "
        "needs no files"
    )
    # Many may download at the same time; each leaves a whole file or none.
    part = f"{target}-{uuid.uuid4().hex}.part"
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(part, "xb") as opened:
            _fetch(source, opened, progress)
            opened.flush()
            os.fsync(opened.fileno())
        if _md5(part) != source.md5:
            raise DatasetError(f"{source.url} came out damaged or changed; {ways_out}")
        os.replace(part, target)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
        raise DatasetError(
            f"{source.name} is not in {_shown(_cache_root())} and its download failed "
            f"({_shown(str(reason or error or type(error).__name__))}); {ways_out}"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def _fetch(source, opened, progress):
    with urllib.request.urlopen(source.url, timeout=_STALL_SECONDS) as response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        step = max((total or 0) // 10, 10 * _MEBI)
        done, next_line = 0, 0
        too_large = f"{source.url} sends too much; use --data PATH"
        limited = _LimitedReader(response, _ARCHIVE_LIMIT, too_large)
        for chunk in iter(lambda: limited.read(_CHUNK), b""):
            if progress is not None and done >= next_line:
                of_total = f" of {total / 1e6:.0f}" if total else ""
                progress(f"downloading {source.archive}: {done / 1e6:.0f}{of_total} MB")
                next_line += step
            opened.write(chunk)
            done += len(chunk)
        if total is not None and done < total:
            raise OSError(f"it ended after {done} of {total} bytes")


# Pickles


class _Global(enum.Enum):
    """What a batch may name; stands for it, and is never called."""

    RECONSTRUCT = enum.auto()
    NDARRAY = enum.auto()
    DTYPE = enum.auto()
    ENCODE = enum.auto()


_GLOBALS = {
    "numpy.core.multiarray _reconstruct": _Global.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Global.RECONSTRUCT,
    "numpy ndarray": _Global.NDARRAY,
    "numpy dtype": _Global.DTYPE,
    "_codecs encode": _Global.ENCODE,  # Python 3 writes bytes so for Python 2
}


class _Array:
    """An array as a pickle declares it; nothing of it is allocated."""

    state = None


class _DType:
    def __init__(self, name):
        self.name = name


class _Unreadable(Exception):
    """What is wrong with a batch."""


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINBYTES", "SHORT_BINBYTES"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _unpickle(content):
    """Interpret a pickle that holds lists, dicts, strings, numbers and arrays.

    The instructions are those that Python 2 and 3 use for such objects (protocols 2 to
    4). Everything that is built is at most as large as its pickle: strings are parts of
    it (bytes of Python 2 remain Latin-1 text), arrays stay as declared, and keys of
    dicts, the one thing that is hashed, are short strings.

    Args:
        content (bytes): The pickle.

    Returns:
        object: What it holds, with :class:`_Array` for arrays.

    Raises:
        _Unreadable: If it holds anything else.
        ValueError, LookupError, TypeError: If it is broken.
    """
    stack, marked, memo = [], [], {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count == _INSTRUCTION_LIMIT:
            raise _Unreadable("is too long a pickle")
        name = opcode.name
        if name in _LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            marked.append(stack)
            stack = []
        elif name in ("APPENDS", "SETITEMS", "TUPLE"):
            items, stack = stack, marked.pop()
            if name == "TUPLE":
                stack.append(tuple(items))
            elif name == "APPENDS":
                _expect(stack[-1], list).extend(items)
            else:
                _set_items(stack[-1], items)
        elif name == "APPEND":
            item = stack.pop()
            _expect(stack[-1], list).append(item)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "GLOBAL":
            stack.append(_find_global(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
            stack.append(
                _find_global(f"{module[:_KEY_LIMIT]} {attribute[:_KEY_LIMIT]}")
            )
        elif name == "REDUCE":
            arguments, function = _expect(stack.pop(), tuple), stack.pop()
            stack.append(_reduce(function, arguments))
        elif name == "BUILD":
            state = _expect(stack.pop(), tuple)
            if isinstance(stack[-1], _Array):
                stack[-1].state = state
            else:
                _expect(stack[-1], _DType)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise _Unreadable(f"uses the pickle instruction {name}")
    raise _Unreadable("has no end")


def _expect(value, kind):
    if type(value) is not kind:
        raise _Unreadable("is no sound pickle")
    return value


def _find_global(name):
    if name not in _GLOBALS:
        shown = _shown(name.replace(" ", ".", 1)[: 2 * _KEY_LIMIT])
        raise _Unreadable(f"asks for {shown}, which no such file needs")
    return _GLOBALS[name]


def _reduce(function, arguments):
    if function is _Global.RECONSTRUCT:
        return _Array()
    if function is _Global.DTYPE:
        return _DType(arguments[0])
    if function is _Global.ENCODE:
        return _expect(arguments[0], str)
    raise _Unreadable("is no sound pickle")


def _set_items(target, items):
    _expect(target, dict)
    for key, value in zip(items[::2], items[1::2]):
        if isinstance(key, bytes):
            key = key[: _KEY_LIMIT + 1].decode("latin-1")
        if len(_expect(key, str)) > _KEY_LIMIT:
            raise _Unreadable("has too long a key")
        target[key] = value


def _parse_batch(source, content, shown, advice):
    """Return images, uint8 of shape (N, 3072), and labels, int32, of one file."""
    try:
        batch = _expect(_unpickle(content), dict)
        if source.labels not in batch:
            for other in _SOURCES.values():
                if other.labels in batch:
                    raise _wrong_data_set(source, other, shown)
        for key in ("data", source.labels):
            if key not in batch:
                raise _Unreadable(f"lacks {key!r}")
        images = _pixels(batch["data"])
        labels = _expect(batch[source.labels], list)
        if len(labels) != len(images):
            raise _Unreadable(f"has {len(labels)} labels for {len(images)} images")
        for label in labels:
            if type(label) is not int or not 0 <= label < source.n_class:
                raise _Unreadable(f"has labels out of 0 to {source.n_class - 1}")
        return images, numpy.array(labels, numpy.int32)
    except DatasetError:
        raise
    except _Unreadable as error:
        reason = str(error)
    except (ValueError, LookupError, TypeError, OverflowError):
        reason = "is no sound pickle"
    raise DatasetError(f"{shown} {reason}; {advice}")


def _pixels(array):
    if type(array) is not _Array or array.state is None or len(array.state) != 5:
        raise _Unreadable("has no array of images")
    _, shape, dtype, fortran_order, raw = array.state
    if type(dtype) is not _DType or dtype.name not in ("u1", "|u1", b"u1"):
        raise _Unreadable("has images that are not uint8")
    if isinstance(raw, str):
        raw = raw.encode("latin-1")
    n, rest = divmod(len(_expect(raw, bytes)), _PIXELS)
    # The bytes that are there tell the size; what is declared has to agree.
    if rest or not n or shape != (n, _PIXELS) or fortran_order:
        raise _Unreadable(f"has no images of shape (N, {_PIXELS})")
    return numpy.frombuffer(raw, numpy.uint8).reshape(n, _PIXELS)
