"""The classes of ImageNet's validation images where these lie in one directory.

What the ILSVRC 2012 archives unpack to has ``ILSVRC2012_val_00000001.JPEG`` and so on,
and, in ``ILSVRC2012_devkit_t12/data``, a line for each with the number of its class
(``ILSVRC2012_validation_ground_truth.txt``) and the names of these numbers
(``meta.mat``). What Kaggle distributes has ``LOC_val_solution.csv`` instead.
"""

import os
import re
import struct
import zlib

import numpy

from chainer_crossbn.datasets.images import DatasetError

TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
SOLUTION = "LOC_val_solution.csv"
_FOLDERS = (
    *("", "val", "ILSVRC2012_devkit_t12/data", "ILSVRC2012_devkit_t12", "devkit/data"),
)

_NUMBERED = re.compile(r"ILSVRC2012_val_0*([1-9]\d{0,7})\.\w+")
_FILE_LIMIT = 64 << 20

# Of MATLAB's file format, level 5.
_COMPRESSED, _MATRIX = 15, 14
_STRUCT, _CHAR = 2, 4
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 9: "f8", 16: "u1"}


def labels(root, files, classes):
    """Find the classes of validation images.

    Args:
        root (str): Directory of the data.
        files (list of File): The images.
        classes (list of str): WordNet IDs in the order of their labels.

    Returns:
        numpy.ndarray: int32 of the length of ``files``.

    Raises:
        DatasetError: If no file tells, or one is damaged.
    """
    solution, truth, meta = (_found(root, name) for name in (SOLUTION, TRUTH, META))
    if truth is not None and meta is not None:
        by_image = _of_devkit(truth, meta)
        source = truth
    elif solution is not None:
        by_image = _of_solution(solution)
        source = solution
    else:
        raise DatasetError(
            f"{root}/val has no directories, one for each class; beside it there must "
            f"be {TRUTH} and {META} (or the directory ILSVRC2012_devkit_t12 that has "
            f"them), or {SOLUTION}"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    result = numpy.empty(len(files), numpy.int32)
    for i, file in enumerate(files):
        match = _NUMBERED.fullmatch(os.path.basename(file.name))
        name = by_image.get(int(match[1])) if match else None
        if name is None:
            raise DatasetError(
                f"{source} does not tell the class of {os.path.join(root, file.name)}"
            )
        if name not in numbers:
            raise DatasetError(
                f"{source} has the class {name}, which {root}/train has not"
            )
        result[i] = numbers[name]
    return result


def _found(root, name):
    paths = (os.path.join(root, folder, name) for folder in _FOLDERS)
    return next((path for path in paths if os.path.isfile(path)), None)


def _content(path):
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise DatasetError(f"can't read {path}: {error.strerror}") from None
    if len(content) > _FILE_LIMIT:
        raise DatasetError(f"{path} is too large")
    return content


def _of_solution(path):
    """Return a dict from the number of an image to the name of its class."""
    result = {}
    lines = _content(path).decode("utf-8", "replace").splitlines()
    for count, line in enumerate(lines[1:], 2):
        image, _, boxes = line.partition(",")
        match = _NUMBERED.fullmatch(image + ".JPEG")
        if match is None or not boxes.split():
            raise DatasetError(f"{path}: line {count} is no image and its class")
        result[int(match[1])] = boxes.split()[0]
    return result


def _of_devkit(truth, meta):
    names = _names(meta)
    result = {}
    for count, line in enumerate(_content(truth).splitlines(), 1):
        name = names.get(int(line)) if line.strip().isdigit() else None
        if name is None:
            raise DatasetError(f"{truth}: line {count} is no class that {meta} has")
        result[count] = name
    return result


def _names(path):
    """Return a dict from the numbers of classes to their WordNet IDs."""
    content = _content(path)
    try:
        if content[126:128] != b"IM":
            raise ValueError("not of level 5, little-endian")
        for kind, body in _elements(content[128:]):
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                unpacked = unpacker.decompress(body, _FILE_LIMIT)
                ((kind, body),) = _elements(unpacked)
            if kind == _MATRIX:
                name, value = _matrix(body)
                if name == "synsets":
                    fields = (value["ILSVRC2012_ID"], value["WNID"])
                    return {int(number): wnid for number, wnid in zip(*fields)}
        raise ValueError("no synsets")
    except (ValueError, LookupError, TypeError, struct.error, zlib.error):
        raise DatasetError(
            f"{path} is not that of ILSVRC2012_devkit_t12; get it again"
        ) from None


def _elements(content):
    """Yield types and contents of data elements."""
    start = 0
    while start < len(content):
        kind, size = struct.unpack_from("<II", content, start)
        start += 8
        if kind >> 16:  # a small one, all in eight bytes
            yield kind & 0xFFFF, content[start - 4 : start - 4 + (kind >> 16)]
            continue
        if start + size > len(content):
            raise ValueError("cut short")
        yield kind, content[start : start + size]
        # Others than compressed ones begin at multiples of eight bytes.
        start += size if kind == _COMPRESSED else -(-size // 8) * 8


def _matrix(content):
    """Return name and value: a dict of lists, a string, a number, or None."""
    elements = _elements(content)
    (flags,) = struct.unpack_from("<I", next(elements)[1])
    next(elements)  # the dimensions, which what follows tells as well
    name = next(elements)[1].decode("latin-1")
    if flags & 0xFF == _STRUCT:
        (width,) = struct.unpack("<i", next(elements)[1])
        text = next(elements)[1]
        fields = [
            text[i : i + width].rstrip(b"\0").decode("latin-1")
            for i in range(0, len(text), width)
        ]
        values = [_matrix(body)[1] for _, body in elements]
        return name, {f: values[i :: len(fields)] for i, f in enumerate(fields)}
    kind, data = next(elements, (None, b""))
    if kind not in _NUMBERS or len(data) == 0:
        return name, None
    numbers = numpy.frombuffer(data, "<" + _NUMBERS[kind])
    if flags & 0xFF == _CHAR:
        return name, "".join(map(chr, numbers))
    return name, numbers[0]
