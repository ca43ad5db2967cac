"""Stands in for CuPy where there is no GPU: what Chainer and this package use of it.

Arrays are in host memory, but can't be mixed with NumPy's or with those of another
device, and never become NumPy's by accident. Kernels run on the CPU, from their source.
What waits for a device, and what crosses over, is in :data:`record`.
"""

import functools
import sys

import numpy

from cupy import cuda, random  # noqa: F401
from cupy._arrays import call, ndarray, record, wrap
from cupy._kernels import (  # noqa: F401
    ElementwiseKernel,
    RawKernel,
    RawModule,
    ReductionKernel,
)

__version__ = "14.2.0"
_TAKE_FROM_HOST = ("array", "asarray", "ascontiguousarray")


def asnumpy(array):
    return array.get()


def get_array_module(*arrays):
    on_device = any(isinstance(array, ndarray) for array in arrays)
    return sys.modules[__name__] if on_device else numpy


def memoize(for_each_device=False):
    return functools.cache


def clear_memo():
    pass


def fuse(*args, **kwargs):
    return args[0] if args and callable(args[0]) else lambda function: function


def get_default_memory_pool():
    return None


get_default_pinned_memory_pool = get_default_memory_pool


def __getattr__(name):
    """Take from NumPy what is not here."""
    value = getattr(numpy, name)
    if not callable(value) or isinstance(value, type):
        return value

    @functools.wraps(value)
    def function(*args, **kwargs):
        if name in _TAKE_FROM_HOST and isinstance(args[0], numpy.ndarray):
            record.append(("to device", args[0].nbytes))
            return wrap(numpy.array(value(*args, **kwargs)))
        return call(value, args, kwargs)

    return function
