"""Pickles of lists, dicts, strings, numbers and NumPy arrays from untrusted files.

The pickle format is a program that can import and call anything. The standard remedy,
an allow-list in :meth:`pickle.Unpickler.find_class`, is the first of four here:

* Names of NumPy resolve to stand-ins, which allocate nothing. ``numpy.ndarray`` and
  ``numpy.dtype`` do not check all that a pickle can pass to them.
* The unpickler is Python's own implementation. The one in C may allocate gigabytes for
  its memo when a pickle of a few bytes asks for it (CPython issue 115952).
* Only the instructions that such objects need are known, and keys of dicts are short
  strings: to hash nested tuples can overflow the stack or take exponential time.
* The number of instructions is limited, because one byte can make an object of 64.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import NamedTuple

# The longest official CIFAR batch has some 200,000 instructions, each of up to 3 reads.
_READ_LIMIT = 4_000_000
_KEY_LIMIT = 100
_BYTES_LIMIT = 1 << 28


class MalformedPickle(ValueError):
    """A pickle can't be accepted. The message is a predicate: "has no end"."""


class DeclaredArray:
    """A NumPy array as a pickle declares it.

    Attributes:
        state (object): The argument of ``ndarray.__setstate__``: version, shape,
            name of the data type, whether the order is Fortran's, and the elements as
            bytes, or as text in Latin-1.
    """

    def __init__(self, *arguments: object) -> None:
        self.state: object = None


class DeclaredScalar(NamedTuple):
    """A NumPy scalar as a pickle declares it.

    Attributes:
        dtype (str or bytes): Name of the data type.
        content (bytes or str): Its bytes, or these as text in Latin-1.
    """

    dtype: object
    content: object


def _first(argument, *others):
    return argument


def _from_buffer(content, dtype, shape, order, *others):
    """Return the array that protocol 5 declares."""
    array = DeclaredArray()
    array.state = 1, shape, dtype, order != "C", content
    return array


_STAND_INS = {
    "numpy.core.multiarray._reconstruct": DeclaredArray,
    "numpy._core.multiarray._reconstruct": DeclaredArray,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.core.multiarray.scalar": DeclaredScalar,
    "numpy._core.multiarray.scalar": DeclaredScalar,
    "numpy.ndarray": DeclaredArray,
    "numpy.dtype": _first,
    # Python 3 writes bytes so in protocol 2. Encoding the same text many times would
    # use up the memory.
    "_codecs.encode": _first,
}

# Names in the module pickle: what protocols 2 to 5 use for the objects named above.
_INSTRUCTIONS = (
    "PROTO STOP MARK BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET",
    "GLOBAL STACK_GLOBAL REDUCE NONE NEWTRUE NEWFALSE",
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINSTRING SHORT_BINSTRING",
    "BINBYTES SHORT_BINBYTES BINUNICODE SHORT_BINUNICODE",
    "EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE EMPTY_LIST APPEND APPENDS EMPTY_DICT",
)


def _standard_instructions():
    names = " ".join(_INSTRUCTIONS).split()
    codes = [getattr(pickle, name)[0] for name in names]
    return {code: pickle._Unpickler.dispatch[code] for code in codes}


class _Unpickler(pickle._Unpickler):
    dispatch = _standard_instructions()

    def find_class(self, module, name):
        full_name = f"{module}.{name}"
        if full_name not in _STAND_INS:
            shown = full_name if full_name.isprintable() else ascii(full_name)
            raise MalformedPickle(
                f"asks for {shown[: 2 * _KEY_LIMIT]}, which no such file needs"
            )
        return _STAND_INS[full_name]

    def load_build(self):
        state = self.stack.pop()
        if isinstance(self.stack[-1], DeclaredArray):
            self.stack[-1].state = state

    dispatch[pickle.BUILD[0]] = load_build

    def load_setitem(self):
        _check_key(self.stack[-2])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self):
        for key in self.stack[::2]:
            _check_key(key)
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_frame(self):
        # Frames are for reading ahead. Their contents are read as what is outside.
        self.read(8)

    dispatch[pickle.FRAME[0]] = load_frame

    def load_bytearray8(self):
        # The standard one allocates the declared size before it reads.
        (size,) = struct.unpack("<Q", self.read(8))
        if size > _BYTES_LIMIT:
            raise MalformedPickle("has an array that is too large")
        self.append(self.read(size))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _check_key(key):
    if not isinstance(key, (str, bytes)) or len(key) > _KEY_LIMIT:
        raise MalformedPickle("has a key that is not a short string")


class _LimitedFile(io.BytesIO):
    """A file in memory that can be read so many times."""

    def __init__(self, content):
        super().__init__(content)
        self._left = _READ_LIMIT

    def read(self, size=-1):
        self._left -= 1
        if self._left < 0:
            raise MalformedPickle("has too many instructions")
        return super().read(size)


def loads(content: bytes) -> object:
    """Unpickle lists, dicts, strings, numbers and NumPy arrays.

    Args:
        content (bytes): The pickle, of protocol 2 to 5.

    Returns:
        object: Its content, with a :class:`DeclaredArray` for each array and a
        :class:`DeclaredScalar` for each NumPy scalar. Strings of Python 2 are bytes.

    Raises:
        MalformedPickle: If it is damaged, or has other objects.
    """
    try:
        return _Unpickler(_LimitedFile(content), encoding="bytes").load()
    except MalformedPickle:
        raise
    except (
        # What pickle._Unpickler raises on broken input.
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        struct.error,
    ):
        raise MalformedPickle("is not a valid pickle") from None
