"""The kernels for CuPy arrays: CUDA, one pass over memory each.

They are compiled at the first use, for the dtypes at hand, and run on the current
stream; nothing here waits for the device. The named tuples below have the parameters of
the kernels in :data:`SOURCE`, in their order.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy
from chainer.backends import cuda

from chainer_crossbn.kernels.cuda import launching
from chainer_crossbn.kernels.cuda.launching import NULL, THREADS, Pointer
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
        element (numpy.dtype): Dtype of the images.
        parameter (numpy.dtype): Dtype of gamma and beta.
        relu (bool): Whether ReLU follows.
        running (numpy.dtype or None): Dtype of the running statistics, by default that
            of gamma and beta.

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


class _Array(NamedTuple):
    """How an array is divided among blocks: ``struct Array`` of the source."""

    c: numpy.int64
    s: numpy.int64
    lanes: numpy.int64
    row_parts: numpy.int64
    column_parts: numpy.int64
    ranks: numpy.int64
    rows_of_rank: numpy.int64
    longer_ranks: numpy.int64
    rows_of_sample: numpy.int64


class _Moments(NamedTuple):
    x: Pointer
    mean: Pointer
    m2: Pointer
    parts: Pointer = NULL
    arrived: Pointer = NULL


class _Sums(NamedTuple):
    x: Pointer
    gy: Pointer
    mean: Pointer
    inv_std: Pointer
    sums: Pointer
    gradients: Pointer
    gamma: Pointer = NULL
    beta: Pointer = NULL
    parts: Pointer = NULL
    arrived: Pointer = NULL


class _Normalize(NamedTuple):
    """Where ``m2`` is not null, ``inv_std`` is computed from it and written."""

    x: Pointer
    y: Pointer
    mean: Pointer
    inv_std: Pointer
    gamma: Pointer
    beta: Pointer
    m2: Pointer = NULL
    count_on_device: Pointer = NULL
    n: float = 0.0
    eps: float = 0.0
    running_mean: Pointer = NULL
    running_var: Pointer = NULL
    decay: float = 0.0


class _Differentiate(NamedTuple):
    x: Pointer
    gy: Pointer
    gx: Pointer
    mean: Pointer
    inv_std: Pointer
    gamma: Pointer
    total: Pointer
    count_on_device: Pointer
    n: float
    relu_gamma: Pointer = NULL
    relu_beta: Pointer = NULL


class _Plan(NamedTuple):
    """How a kernel is launched.

    Attributes:
        way (str): Which variant of the kernel.
        grid (tuple of int): Blocks across channels, parts of a group, groups.
        array (_Array): How the array is divided among them.
    """

    way: str
    grid: tuple[int, int, int]
    array: _Array


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
    across = c if planes else math.ceil(length / lanes)
    wanted = n_multiprocessors * _BLOCKS_OF_A_MULTIPROCESSOR  # of all groups
    parts = math.ceil(wanted / (across * groups.count))
    rows = THREADS // lanes
    most_row_parts = max(math.ceil(most_rows / (rows * _LEAST_LOADS)), 1)
    row_parts = min(parts, most_row_parts, _MOST_PARTS)
    column_parts = 1
    if planes:
        most_column_parts = max(math.ceil(length / (lanes * _LEAST_LOADS)), 1)
        column_parts = min(
            math.ceil(parts / row_parts), most_column_parts, _MOST_PARTS // row_parts
        )
    array = _array(n, c, s, groups, lanes, row_parts, column_parts)
    way = ("wide_" if width > 1 else "") + ("planes" if planes else "columns")
    return _Plan(way, (across, row_parts * column_parts, groups.count), array)


def _array(n, c, s, groups, lanes, row_parts, column_parts):
    ranks, rows_of_rank, longer_ranks, rows_of_sample = 1, n, 0, 0
    if groups.count > 1:
        ranks = groups.size
        share, longer_ranks = divmod(groups.samples, groups.virtual_ranks)
        rows_of_sample = n // groups.samples
        rows_of_rank = share * rows_of_sample
    return _Array(
        c=numpy.int64(c),
        s=numpy.int64(s),
        lanes=numpy.int64(lanes),
        row_parts=numpy.int64(row_parts),
        column_parts=numpy.int64(column_parts),
        ranks=numpy.int64(ranks),
        rows_of_rank=numpy.int64(rows_of_rank),
        longer_ranks=numpy.int64(longer_ranks),
        rows_of_sample=numpy.int64(rows_of_sample),
    )


def _plan_of(launcher, groups, *same_shape):
    x = same_shape[0]
    aligned = not any(_address(v) % _BYTES_OF_A_LOAD for v in same_shape)
    return _plan(x.shape, groups, x.itemsize, aligned, launcher.multiprocessors)


def _address(x):
    return x.ctypes.data if isinstance(x, numpy.ndarray) else x.data.ptr


def _module_of(x):
    # The kernels also run on the CPU.
    return numpy if isinstance(x, numpy.ndarray) else cuda.cupy


def _launcher(*types):
    return launching.launcher(SOURCE, options(*types))


def _launch(launcher, kernel, plan, arguments):
    launcher(f"{kernel}_by_{plan.way}", plan.grid, (*plan.array, *arguments))


def _launch_reduction(launcher, kernel, plan, arguments, n_states):
    """Have values reduced by all blocks, and the results merged by the last of them.

    Args:
        n_states (int): float64 numbers that a block leaves per channel.
    """
    x = arguments.x
    across, n_parts, n_groups = plan.grid
    if n_parts > 1:
        size = n_groups * n_parts * x.shape[1] * n_states
        arguments = arguments._replace(parts=_module_of(x).empty(size))
    if n_parts > 1 or n_groups > 1:
        counters = launcher.counters((1 + n_groups) * across)
        arguments = arguments._replace(arrived=counters)
    _launch(launcher, kernel, plan, arguments)


def _contiguous(x, dtype=None):
    if x.flags.c_contiguous and (dtype is None or x.dtype == dtype):
        return x
    return _module_of(x).ascontiguousarray(x, dtype)


def _count(count):
    """Return a count as two arguments: an array on the device, or a number.

    The number is 0 for ``None``, for which a kernel takes the count of its group.
    """
    if count is None:
        return {"count_on_device": NULL, "n": 0.0}
    if isinstance(count, (int, float)):
        return {"count_on_device": NULL, "n": float(count)}
    return {"count_on_device": count, "n": 0.0}


def moments(x, groups=WHOLE):
    """As :func:`.array_api.moments`."""
    x = _contiguous(x)
    shape = 2, groups.count * x.shape[1]
    xp = _module_of(x)
    if x.size == 0:
        return tuple(xp.zeros(shape))
    mean, m2 = xp.empty(shape)
    launcher = _launcher(x.dtype, x.dtype, False)
    plan = _plan_of(launcher, groups, x)
    arguments = _Moments(x=x, mean=mean, m2=m2)
    _launch_reduction(launcher, "moments", plan, arguments, n_states=3)
    return mean, m2


def normalize_batch(
    x, count, mean, m2, eps, gamma, beta, running, decay, relu=False, groups=WHOLE
):
    """As :func:`.array_api.normalize_batch`."""
    m2 = _contiguous(m2)
    inv_std = _module_of(x).empty(m2.shape)
    statistics = {"m2": m2, **_count(count), "eps": float(eps)}
    running_mean, running_var = running
    if running_mean is None:
        y = _normalize(x, mean, inv_std, gamma, beta, relu, groups, **statistics)
        return y, inv_std
    kept = [_contiguous(v) for v in running]
    statistics.update(running_mean=kept[0], running_var=kept[1], decay=float(decay))
    y = _normalize(x, mean, inv_std, gamma, beta, relu, groups, **statistics)
    for given, updated in zip(running, kept):
        if updated is not given:
            given[...] = updated
    return y, inv_std


def normalize(x, mean, inv_std, gamma, beta, relu=False, groups=WHOLE):
    """As :func:`.array_api.normalize`."""
    return _normalize(x, mean, inv_std, gamma, beta, relu, groups)


def _normalize(x, mean, inv_std, gamma, beta, relu, groups, **statistics):
    x = _contiguous(x)
    y = _module_of(x).empty_like(x)
    gamma = _contiguous(gamma)
    running_dtype = statistics.get("running_mean", gamma).dtype
    launcher = _launcher(x.dtype, gamma.dtype, relu, running_dtype)
    # Without images, too, the statistics are finished, as on all ranks.
    planned = (x, y) if x.size else (x.reshape(0, x.shape[1], 1),)
    arguments = _Normalize(
        x=x,
        y=y,
        mean=_contiguous(mean),
        inv_std=inv_std,
        gamma=gamma,
        beta=_contiguous(beta, gamma.dtype),
        **statistics,
    )
    _launch(launcher, "normalize", _plan_of(launcher, groups, *planned), arguments)
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
    arguments = _Sums(
        x=x,
        gy=gy,
        mean=mean,
        inv_std=inv_std,
        sums=sums,
        gradients=gradients,
        gamma=gamma,
        beta=beta,
    )
    launcher = _launcher(x.dtype, gradients.dtype, relu_of is not None)
    plan = _plan_of(launcher, groups, x, gy)
    _launch_reduction(launcher, "sums", plan, arguments, n_states=2)
    return sums, gradients


def input_gradient(
    x, gy, mean, inv_std, gamma, total, count, relu_of=None, groups=WHOLE
):
    """As :func:`.array_api.input_gradient`."""
    x = _contiguous(x)
    gy = _contiguous(gy, x.dtype)
    gx = _module_of(x).empty_like(x)
    if x.size == 0:
        return gx
    gamma = _contiguous(gamma)
    relu_gamma, relu_beta = (NULL, NULL)
    if relu_of is not None:
        relu_gamma, relu_beta = (_contiguous(v, gamma.dtype) for v in relu_of)
    arguments = _Differentiate(
        x=x,
        gy=gy,
        gx=gx,
        mean=mean,
        inv_std=inv_std,
        gamma=gamma,
        total=_contiguous(total),
        relu_gamma=relu_gamma,
        relu_beta=relu_beta,
        **_count(count),
    )
    launcher = _launcher(x.dtype, gamma.dtype, relu_of is not None)
    _launch(launcher, "differentiate", _plan_of(launcher, groups, x, gy, gx), arguments)
    return gx


update_running = array_api.update_running
