"""What Chainer uses of the package ``six``, for machines that lack it.

Chainer 7 is written for Python 2, too. What else it needs to be imported, filelock and
typing_extensions, comes with PyTorch.
"""

import collections.abc
import functools
import io
import pickle
import queue
import sys
import types
import urllib.request

PY2, PY3 = False, True

integer_types = (int,)
string_types = (str,)
StringIO = io.StringIO
next = next
create_bound_method = types.MethodType


def iteritems(mapping):
    return iter(mapping.items())


def iterkeys(mapping):
    return iter(mapping.keys())


def itervalues(mapping):
    return iter(mapping.values())


def reraise(kind, value, traceback=None):
    raise (kind() if value is None else value).with_traceback(traceback)


def raise_from(value, cause):
    raise value from cause


def with_metaclass(metaclass, *bases):
    """Return a base of classes that are to have a metaclass and bases."""

    class Temporary(metaclass):
        def __new__(cls, name, _, namespace):
            return metaclass(name, bases, namespace)

    return type.__new__(Temporary, "Temporary", (), {})


def _modules():
    moves = types.ModuleType(f"{__name__}.moves")
    moves.__path__ = []
    vars(moves).update(
        range=range,
        zip=zip,
        reduce=functools.reduce,
        cPickle=pickle,
        collections_abc=collections.abc,
        queue=queue,
        urllib=urllib,
    )
    yield "moves", moves
    yield "moves.cPickle", pickle
    yield "moves.collections_abc", collections.abc
    yield "moves.queue", queue
    yield "moves.urllib", urllib
    yield "moves.urllib.request", urllib.request


__path__ = []
for _name, _module in _modules():
    sys.modules[f"{__name__}.{_name}"] = _module
moves = sys.modules[f"{__name__}.moves"]
