"""Per-device arithmetic.

For batch normalization, :mod:`cpu`, :mod:`gpu` and :mod:`arrays` hold the same
functions, for NumPy arrays, for CuPy arrays and for all others (without Numba, NumPy
arrays are among these), on arrays of shape ``(n, c, s)``: n samples, c channels and s
positions, whatever the layout was before. Where channels are last in memory, n is
samples times positions.
Statistics are float64 arrays of shape ``(c,)``, and all arithmetic is float64. Rows may
be divided into groups that have statistics of their own (:mod:`groups`).

For CPUs alone there are :mod:`winograd`, :mod:`pointwise` and :mod:`columns` for
convolution, :mod:`products` for linear layers and small maps, and :mod:`pooling` and
:mod:`update`; images go through them with their channels last in memory
(:mod:`memory`).

Where Numba is missing (it has no wheel for some machines), what is for CPUs alone is
left to Chainer.
"""

import contextlib
import importlib.util

import numpy
from chainer.backends import cuda as chainer_cuda

from chainer_crossbn.kernels import normalization
from chainer_crossbn.kernels.normalization.groups import WHOLE, Groups

__all__ = [
    "COMPILED",
    "WHOLE",
    "Groups",
    "are_compiled_for",
    "each_step",
    "of",
    "on_gpu",
    "precompile",
]

COMPILED = importlib.util.find_spec("numba") is not None
if COMPILED:
    from chainer_crossbn.kernels.cpu import (
        compilation,
        im2col,
        matmul,
        pointwise,  # noqa: F401  has nothing to compile
        pooling,
        sgd,
        winograd,
    )
    from chainer_crossbn.kernels.normalization import numba


def of(x):
    """Return the module of kernels for the array ``x``."""
    if COMPILED and isinstance(x, numpy.ndarray):
        return numba
    return normalization.cuda if on_gpu(x) else normalization.array_api


def on_gpu(x):
    """Return whether ``x`` is an array on a GPU."""
    return chainer_cuda.available and isinstance(x, chainer_cuda.ndarray)


def are_compiled_for(x):
    """Return whether what is for CPUs alone takes the array ``x``."""
    return (
        COMPILED
        and isinstance(x, numpy.ndarray)
        and x.dtype.char in "fd"
        and x.dtype.isnative
        and x.flags.aligned
    )


def each_step(call):
    """Return a context in which a function is called at each step of a compilation.

    Args:
        call (callable): Takes nothing.
    """
    return compilation.each_step(call) if COMPILED else contextlib.nullcontext()


def precompile(dtype=numpy.float32):
    """Compile the kernels of the CPU for a dtype, which else happens when first used.

    Args:
        dtype: Of the images; for float16, which is computed in float32, the kernels of
            that are compiled.
    """
    if not COMPILED:
        return
    dtype = numpy.promote_types(dtype, numpy.float32)
    # No side is 1, as that would hide in which order an array is in memory.
    v = numpy.zeros(2)
    numba.merge(numpy.zeros(5), numpy.zeros(5), 0)
    rows = numpy.zeros((2, 6))
    numbers = numpy.zeros((2, 2), numpy.int64)[:, 0]
    numba.all_above(numbers, 0)
    numba.all_equal(numbers, 0)
    numba.sum_rows(rows, numpy.zeros(5))
    numba.merge_rows(rows, numpy.zeros(5))
    rows = numpy.zeros((2, 3), dtype)
    numba.mean_rows(rows, rows.dtype.type(1), numpy.zeros(3, dtype))
    for positions in (1, 2):
        x = numpy.zeros((2, 2, positions), dtype)
        numba.moments(x)
        numba.normalize(x, v, v, v, v)
        numba.gradient_sums(x, x, v, v, dtype)
        numba.input_gradient(x, x, v, v, v, numpy.zeros(4), 1)
        numba.update_running(x[0, 0], numpy.zeros(positions), 0.0)
    filters = numpy.zeros((2, 2, 3, 3), dtype)
    sgd.momentum_sgd(filters.copy(), filters, filters.copy(), 0.0, 0.0, 0.0)
    for side in (2, 3):
        image = numpy.zeros((2, 2, side, side), dtype)
        winograd.convolve(image, filters)
        winograd.gradient_of_input(image, filters)
        winograd.gradient_of_filters(image, image)
    matmul.precompile(dtype)
    windows = 2, 2, 0
    pooling.spread(*pooling.pool(image, *windows, (2, 2)), *windows, image.shape)
    where = (1, 1), (1, 1)
    for n in (2, 32):  # filters: fewer than positions, and more
        filters = numpy.zeros((n, 2, 3, 3), dtype)
        y = im2col.convolve(image, filters, None, *where)
        im2col.gradient_of_input(y, filters, image.shape, *where)
        im2col.gradient_of_filters(image, y, filters.shape, *where)
