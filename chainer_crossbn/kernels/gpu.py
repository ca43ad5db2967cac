"""The kernels for CuPy arrays: CUDA, one pass over memory each.

They are compiled when first used, for the dtypes at hand, and run on the current
stream; nothing here waits for the device.
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy
from chainer import backend

from chainer_crossbn.kernels import arrays, launching
from chainer_crossbn.kernels.launching import NULL, THREADS

SOURCE = Path(__file__).with_name("batch_normalization.cu")

_TYPES = {"e": "Half", "f": "float", "d": "double"}
_BYTES_OF_A_LOAD = 16
# Positions of a channel, from which on its planes are read one by one.
_LEAST_PLANE = 32
_LANES_OF_COLUMNS = 32
_BLOCKS_OF_A_MULTIPROCESSOR = 8
# Loads of a thread, below which it does not pay to have more blocks.
_LEAST_LOADS = 4
_MOST_PARTS = 65535  # what CUDA permits


def options(element, parameter):
    """Return the options that :data:`SOURCE` is compiled with.

    Args:
        element (numpy.dtype): Of the images.
        parameter (numpy.dtype): Of gamma, beta and the running statistics.

    Returns:
        tuple of str.
    """
    return (
        f"-DELEMENT={_TYPES[element.char]}",
        f"-DPARAMETER={_TYPES[parameter.char]}",
        f"-DWIDE={_BYTES_OF_A_LOAD // element.itemsize}",
    )


class _Plan(NamedTuple):
    """How an array is shared out among blocks."""

    way: str
    grid: tuple
    array: tuple  # the arguments that describe it
    columns: int  # of a channel, that are summed apart


@functools.lru_cache(maxsize=1024)
def _plan(shape, width, n_multiprocessors):
    n, c, s = shape
    planes = s >= _LEAST_PLANE
    length = s // width if planes else c * s // width  # of a row, in loads
    lanes = min(
        1 << (length - 1).bit_length(), THREADS if planes else _LANES_OF_COLUMNS
    )
    rows = THREADS // lanes
    wanted = n_multiprocessors * _BLOCKS_OF_A_MULTIPROCESSOR
    most_row_parts = max(math.ceil(n / (rows * _LEAST_LOADS)), 1)
    if planes:
        parts = math.ceil(wanted / c)
        row_parts = min(parts, most_row_parts, _MOST_PARTS)
        most_column_parts = max(math.ceil(length / (lanes * _LEAST_LOADS)), 1)
        column_parts = min(
            math.ceil(parts / row_parts), most_column_parts, _MOST_PARTS // row_parts
        )
        grid = c, row_parts * column_parts
    else:
        across = math.ceil(length / lanes)
        row_parts = min(math.ceil(wanted / across), most_row_parts, _MOST_PARTS)
        column_parts = 1
        grid = across, row_parts
    array = tuple(map(numpy.int64, (n, c, s, lanes, row_parts, column_parts)))
    way = ("wide_" if width > 1 else "") + ("planes" if planes else "columns")
    return _Plan(way, grid, array, 1 if planes else s)


def _plan_of(*same_shape):
    n, c, s = same_shape[0].shape
    width = _BYTES_OF_A_LOAD // same_shape[0].itemsize
    aligned = not any(_address(x) % _BYTES_OF_A_LOAD for x in same_shape)
    if not aligned or (s if s >= _LEAST_PLANE else c * s) % width:
        width = 1
    return _plan((n, c, s), width, launching.multiprocessors())


def _address(x):
    return x.ctypes.data if isinstance(x, numpy.ndarray) else x.data.ptr


def _sum(launch, kernel, states, plan, arguments, finish, finishing):
    """Have the parts summed by one kernel, and put together by another."""
    n_parts, c = plan.grid[1], plan.array[1]
    xp = backend.get_array_module(arguments[0])
    parts = xp.empty((n_parts, int(c), plan.columns, states))
    launch(f"{kernel}_by_{plan.way}", plan.grid, *plan.array, *arguments, parts)
    sizes = numpy.int64(n_parts), c, numpy.int64(plan.columns)
    launch(finish, (int(c),), parts, *sizes, *finishing)


def _launcher(element, parameter):
    return launching.launcher(SOURCE, options(element, parameter))


def _contiguous(x, dtype=None):
    return backend.get_array_module(x).ascontiguousarray(x, dtype)


def _count(count):
    """Return the two arguments that a count is, on the host or on the device."""
    if isinstance(count, (int, float)):
        return NULL, float(count)
    return count, 0.0


def moments(x):
    """As :func:`chainer_crossbn.kernels.arrays.moments`."""
    x = _contiguous(x)
    c = x.shape[1]
    xp = backend.get_array_module(x)
    if x.size == 0:
        return xp.zeros(c), xp.zeros(c)
    found = tuple(xp.empty((2, c)))
    launch = _launcher(x.dtype, x.dtype)
    _sum(launch, "moments", 3, _plan_of(x), (x,), "finish_moments", found)
    return found


def finish_statistics(count, mean, m2, eps, running, decay):
    """As :func:`chainer_crossbn.kernels.arrays.finish_statistics`."""
    given = running[0] is not None
    dtype = running[0].dtype if given else numpy.dtype(float)
    if given and not (
        running[1].dtype == dtype and all(v.flags.c_contiguous for v in running)
    ):
        return arrays.finish_statistics(count, mean, m2, eps, running, decay)
    xp = backend.get_array_module(m2)
    mean, m2 = _contiguous(mean), _contiguous(m2)
    inv_std = xp.empty(m2.shape)
    _launcher(dtype, dtype)(
        "finish_statistics",
        (math.ceil(m2.size / THREADS),),
        *(numpy.int64(m2.size), *_count(count), mean, m2, float(eps), inv_std),
        *(running if given else (NULL, NULL)),
        float(decay),
    )
    return inv_std


def normalize(x, mean, inv_std, gamma, beta, relu=False):
    """As :func:`chainer_crossbn.kernels.arrays.normalize`."""
    x = _contiguous(x)
    y = backend.get_array_module(x).empty_like(x)
    if x.size:
        plan = _plan_of(x, y)
        gamma = _contiguous(gamma)
        _launcher(x.dtype, gamma.dtype)(
            f"normalize_by_{plan.way}",
            plan.grid,
            *(*plan.array, x, y, mean, inv_std),
            *(gamma, _contiguous(beta, gamma.dtype), numpy.int64(relu)),
        )
    return y


def gradient_sums(x, gy, mean, inv_std, relu_of=None):
    """As :func:`chainer_crossbn.kernels.arrays.gradient_sums`."""
    x = _contiguous(x)
    gy = _contiguous(gy, x.dtype)
    c = x.shape[1]
    xp = backend.get_array_module(x)
    if x.size == 0:
        return xp.zeros((2, c))
    sums = xp.empty((2, c))
    gamma, beta = (x, NULL) if relu_of is None else map(_contiguous, relu_of)
    launch, plan = _launcher(x.dtype, gamma.dtype), _plan_of(x, gy)
    arguments = x, gy, mean, inv_std, gamma, beta
    _sum(launch, "sums", 2, plan, arguments, "finish_sums", (inv_std, sums))
    return sums


def input_gradient(x, gy, mean, inv_std, gamma, total, count, relu_of=None):
    """As :func:`chainer_crossbn.kernels.arrays.input_gradient`."""
    x = _contiguous(x)
    gy = _contiguous(gy, x.dtype)
    gx = backend.get_array_module(x).empty_like(x)
    if x.size:
        plan = _plan_of(x, gy, gx)
        gamma = _contiguous(gamma)
        beta = NULL if relu_of is None else _contiguous(relu_of[1], gamma.dtype)
        statistics = (mean, inv_std, gamma, beta, _contiguous(total))
        _launcher(x.dtype, gamma.dtype)(
            f"differentiate_by_{plan.way}",
            plan.grid,
            *(*plan.array, x, gy, gx, *statistics, *_count(count)),
        )
    return gx


update_running = arrays.update_running
