"""The kernels for CuPy arrays: CUDA, one pass over memory each.

They are compiled when first used, for the dtypes at hand, and run on the current
stream; nothing here waits for the device.
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy
from chainer.backends import cuda

from chainer_crossbn.kernels.cuda import launching
from chainer_crossbn.kernels.cuda.launching import NULL, THREADS
from chainer_crossbn.kernels.normalization import array_api
from chainer_crossbn.kernels.normalization.groups import WHOLE

SOURCE = Path(__file__).with_name("batch_normalization.cu")

_TYPES = {"e": "Half", "f": "float", "d": "double"}
_BYTES_OF_A_LOAD = 16
_MOST_COLUMNS_OF_A_LOAD = 4  # each wants registers
# Positions of a channel, from which on its planes are read one by one.
_LEAST_PLANE = 32
_LANES_OF_COLUMNS = 32
_BLOCKS_OF_A_MULTIPROCESSOR = 8
# Loads of a thread, below which it does not pay to have more blocks.
_LEAST_LOADS = 4
# What CUDA permits.
_MOST_PARTS = 65535
_MOST_GROUPS = 65535


@functools.cache
def options(element, parameter, relu, running=None):
    """Return the options that :data:`SOURCE` is compiled with.

    Args:
        element (numpy.dtype): Of the images.
        parameter (numpy.dtype): Of gamma and beta.
        relu (bool): Whether ReLU follows.
        running (numpy.dtype or None): Of the running statistics, by default that of
            gamma and beta.

    Returns:
        tuple of str.
    """
    return (
        f"-DELEMENT={_TYPES[element.char]}",
        f"-DPARAMETER={_TYPES[parameter.char]}",
        f"-DRUNNING={_TYPES[(running or parameter).char]}",
        f"-DWIDE_PLANES={_width(element.itemsize, True)}",
        f"-DWIDE_COLUMNS={_width(element.itemsize, False)}",
        f"-DRELU={int(relu)}",
    )


def _width(itemsize, planes):
    """Return how many elements a thread loads at a time."""
    width = _BYTES_OF_A_LOAD // itemsize
    return width if planes else min(width, _MOST_COLUMNS_OF_A_LOAD)


class _Plan(NamedTuple):
    """How an array is shared out among blocks."""

    way: str
    grid: tuple  # blocks across channels, parts of a group, groups
    array: tuple  # the arguments that describe it


@functools.lru_cache(maxsize=1024)
def _plan(shape, groups, itemsize, aligned, n_multiprocessors):
    if groups.count > _MOST_GROUPS:
        raise ValueError(
            f"a GPU takes at most {_MOST_GROUPS} groups with statistics of their own, "
            f"not {groups.count}"
        )
    n, c, s = shape
    _, most_rows, *_ = groups.starts(n).tolist()  # the first group has the most
    planes = s >= _LEAST_PLANE or s & (s - 1) > 0
    width = _width(itemsize, planes)
    if not aligned or (s if planes else c * s) % width:
        width = 1
    length = s // width if planes else c * s // width  # of a row, in loads
    lanes = min(
        1 << (length - 1).bit_length(), THREADS if planes else _LANES_OF_COLUMNS
    )
    rows = THREADS // lanes
    wanted = n_multiprocessors * _BLOCKS_OF_A_MULTIPROCESSOR  # of all groups
    most_row_parts = max(math.ceil(most_rows / (rows * _LEAST_LOADS)), 1)
    if planes:
        parts = math.ceil(wanted / (c * groups.count))
        row_parts = min(parts, most_row_parts, _MOST_PARTS)
        most_column_parts = max(math.ceil(length / (lanes * _LEAST_LOADS)), 1)
        column_parts = min(
            math.ceil(parts / row_parts), most_column_parts, _MOST_PARTS // row_parts
        )
        grid = c, row_parts * column_parts, groups.count
    else:
        across = math.ceil(length / lanes)
        parts = math.ceil(wanted / (across * groups.count))
        row_parts = min(parts, most_row_parts, _MOST_PARTS)
        column_parts = 1
        grid = across, row_parts, groups.count
    array = c, s, lanes, row_parts, column_parts, *_rows_of_groups(n, groups)
    way = ("wide_" if width > 1 else "") + ("planes" if planes else "columns")
    return _Plan(way, grid, tuple(map(numpy.int64, array)))


def _rows_of_groups(n, groups):
    """Return the arguments by which a kernel knows the rows of its group."""
    if groups.count == 1:
        return 1, n, 0, 0
    share, rest = divmod(groups.samples, groups.virtual_ranks)
    rows_of_sample = n // groups.samples
    return groups.size, share * rows_of_sample, rest, rows_of_sample


def _plan_of(launch, groups, *same_shape):
    x = same_shape[0]
    aligned = not any(_address(v) % _BYTES_OF_A_LOAD for v in same_shape)
    return _plan(x.shape, groups, x.itemsize, aligned, launch.multiprocessors)


def _address(x):
    return x.ctypes.data if isinstance(x, numpy.ndarray) else x.data.ptr


def _module_of(x):
    # The kernels also run on the CPU.
    return numpy if isinstance(x, numpy.ndarray) else cuda.cupy


def _launcher(*types):
    return launching.launcher(SOURCE, options(*types))


def _reduce(launch, kernel, plan, arguments, states, results):
    """Have something summed by all blocks, and put together by the last of them."""
    parts = arrived = NULL
    across, n_parts, n_groups = plan.grid
    if n_parts > 1:
        x = arguments[0]
        parts = _module_of(x).empty(n_groups * n_parts * x.shape[1] * states)
    if n_parts > 1 or n_groups > 1:
        arrived = launch.counters((1 + n_groups) * across)
    name = f"{kernel}_by_{plan.way}"
    launch(name, plan.grid, *plan.array, *arguments, parts, arrived, *results)


def _contiguous(x, dtype=None):
    if x.flags.c_contiguous and (dtype is None or x.dtype == dtype):
        return x
    return _module_of(x).ascontiguousarray(x, dtype)


def _count(count):
    """Return the two arguments that a count is: where it is on the device, and which.

    Where there is none, the latter is 0, and a kernel takes that of its group.
    """
    if count is None:
        return NULL, 0.0
    if isinstance(count, (int, float)):
        return NULL, float(count)
    return count, 0.0


def moments(x, groups=WHOLE):
    """As :func:`.array_api.moments`."""
    x = _contiguous(x)
    shape = 2, groups.count * x.shape[1]
    xp = _module_of(x)
    if x.size == 0:
        return tuple(xp.zeros(shape))
    mean, m2 = xp.empty(shape)
    launch = _launcher(x.dtype, x.dtype, False)
    plan = _plan_of(launch, groups, x)
    _reduce(launch, "moments", plan, (x,), 3, (mean, m2))
    return mean, m2


def normalize_batch(
    x, count, mean, m2, eps, gamma, beta, running, decay, relu=False, groups=WHOLE
):
    """As :func:`.array_api.normalize_batch`."""
    m2 = _contiguous(m2)
    inv_std = _module_of(x).empty(m2.shape)
    making = m2, *_count(count), float(eps), inv_std
    y = _normalize(x, mean, making, gamma, beta, running, decay, relu, groups)
    return y, inv_std


def normalize(x, mean, inv_std, gamma, beta, relu=False, groups=WHOLE):
    """As :func:`.array_api.normalize`."""
    known = NULL, NULL, 0.0, 0.0, inv_std
    return _normalize(x, mean, known, gamma, beta, (None, None), 0.0, relu, groups)


def _normalize(x, mean, statistics, gamma, beta, running, decay, relu, groups):
    x = _contiguous(x)
    y = _module_of(x).empty_like(x)
    gamma = _contiguous(gamma)
    kept, dtype = (NULL, NULL), gamma.dtype
    if running[0] is not None:
        kept, dtype = tuple(map(_contiguous, running)), running[0].dtype
    launch = _launcher(x.dtype, gamma.dtype, relu, dtype)
    # Without images the statistics are still to be finished, as on all ranks.
    planned = (x, y) if x.size else (x.reshape(0, x.shape[1], 1),)
    plan = _plan_of(launch, groups, *planned)
    parameters = *kept, float(decay), gamma, _contiguous(beta, gamma.dtype)
    name = f"normalize_by_{plan.way}"
    mean = _contiguous(mean)
    launch(name, plan.grid, *plan.array, x, y, mean, *statistics, *parameters)
    if running[0] is not None:
        for given, found in zip(running, kept):
            if found is not given:
                given[...] = found
    return y


def gradient_sums(x, gy, mean, inv_std, dtype, relu_of=None, groups=WHOLE):
    """As :func:`.array_api.gradient_sums`."""
    x = _contiguous(x)
    gy = _contiguous(gy, x.dtype)
    c = x.shape[1]
    n_sums = 2 * groups.count * c
    xp = _module_of(x)
    if x.size == 0:
        return xp.zeros(n_sums), xp.zeros((2, c), dtype)
    sums, gradients = xp.empty(n_sums), xp.empty((2, c), dtype)
    gamma, beta = (NULL, NULL) if relu_of is None else map(_contiguous, relu_of)
    launch = _launcher(x.dtype, gradients.dtype, relu_of is not None)
    arguments = x, gy, mean, inv_std, gamma, beta
    plan = _plan_of(launch, groups, x, gy)
    _reduce(launch, "sums", plan, arguments, 2, (sums, gradients))
    return sums, gradients


def input_gradient(
    x, gy, mean, inv_std, gamma, total, count, relu_of=None, groups=WHOLE
):
    """As :func:`.array_api.input_gradient`."""
    x = _contiguous(x)
    gy = _contiguous(gy, x.dtype)
    gx = _module_of(x).empty_like(x)
    if x.size:
        gamma = _contiguous(gamma)
        of_relu = NULL, NULL
        if relu_of is not None:
            of_relu = (_contiguous(v, gamma.dtype) for v in relu_of)
        launch = _launcher(x.dtype, gamma.dtype, relu_of is not None)
        plan = _plan_of(launch, groups, x, gy, gx)
        statistics = mean, inv_std, gamma, *of_relu, _contiguous(total), *_count(count)
        name = f"differentiate_by_{plan.way}"
        launch(name, plan.grid, *plan.array, x, gy, gx, *statistics)
    return gx


update_running = array_api.update_running
