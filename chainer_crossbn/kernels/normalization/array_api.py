"""The kernels in array operations, for whatever NumPy's API fits.

They serve where no compiled ones can, and say what those of :mod:`cpu` and :mod:`gpu`
do.
"""

import functools

import numpy
from chainer import backend

from chainer_crossbn.kernels.normalization.groups import WHOLE


def per_row(vector, x, groups):
    """Return the vector of each row's group, so that it broadcasts over ``x``."""
    vectors = vector.reshape(groups.count, -1, 1)
    if groups.count == 1:
        return vectors
    sizes = numpy.diff(groups.starts(len(x)))
    xp = backend.get_array_module(x)
    return vectors[xp.asarray(numpy.repeat(numpy.arange(groups.count), sizes))]


def _sum_rows(x, groups):
    """Sum over the rows and positions of each group, as a vector of shape (g * c,)."""
    starts = groups.starts(len(x)).tolist()
    xp = backend.get_array_module(x)
    return xp.concatenate([x[i:j].sum(axis=(0, 2)) for i, j in zip(starts, starts[1:])])


def _centred(x, mean, groups):
    return x.astype(numpy.float64) - per_row(mean, x, groups)


def moments(x, groups=WHOLE):
    """Return mean and M2, the sum of ``(x - mean)**2``, over n and s.

    Args:
        x: Array of shape (n, c, s), float16, float32 or float64.
        groups (Groups): Of the rows; each has statistics of its own.

    Returns:
        tuple: two float64 arrays of shape (groups.count * c,), the channels of the
        first group first; zeros where n or s is 0.
    """
    if x.size == 0:
        empty = backend.get_array_module(x).zeros(groups.count * x.shape[1])
        return empty, empty.copy()
    count = counts(x, None, groups)
    mean = _sum_rows(x.astype(numpy.float64), groups) / count
    return mean, _sum_rows(_centred(x, mean, groups) ** 2, groups)


def counts(x, count, groups):
    """Return the elements of a channel.

    Args:
        x: Array of shape (n, c, s).
        count: A number or an array of shape (), which is returned as it is, or
            ``None`` for those of ``x``.
        groups (Groups): Of the rows.

    Returns:
        ``count``; or a number where there is one group, and otherwise a float64 array
        of shape (groups.count * c,).
    """
    if count is not None:
        return count
    n, c, s = x.shape
    if groups.count == 1:
        return n * s
    return backend.get_array_module(x).asarray(_counts(groups, n, c, s))


@functools.lru_cache(maxsize=1024)
def _counts(groups, n, c, s):
    return numpy.repeat(numpy.diff(groups.starts(n)) * float(s), c)


def over_groups(sums, c):
    """Add up the groups of an array of shape (2, groups * c)."""
    return sums if sums.shape[1] == c else sums.reshape(2, -1, c).sum(axis=1)


def correction(count):
    """Return what makes a variance unbiased."""
    if isinstance(count, (int, float)):
        return count / max(count - 1, 1)
    xp = backend.get_array_module(count)
    return count / xp.maximum(count - 1, 1)


def merge(a, b, tags=0):
    """Merge the moments of two mini-batches, in place of the second.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances" (1979). Commutative to the bit.

    Args:
        a: float64 array of shape (tags + 1 + 2c,) in host memory: numbers that are only
            added; count, means and M2 of c channels.
        b: Likewise; gets those of both.
        tags (int): How many numbers are only added.
    """
    b[:tags] += a[:tags]
    a, b = a[tags:], b[tags:]
    n, m = a[0], b[0]
    if n == 0:
        return
    if m == 0:
        b[:] = a
        return
    total = n + m
    (mean, m2), (mean_of_both, m2_of_both) = (v[1:].reshape(2, -1) for v in (a, b))
    d = mean - mean_of_both
    m2_of_both[:] = m2 + m2_of_both + d * d * (n * m / total)
    mean_of_both[:] = (n * mean + m * mean_of_both) / total
    b[0] = total


def all_above(numbers, bound):
    """Return whether all of some int64 numbers are above one."""
    return bool(numbers.min() > bound)


def all_equal(numbers, number):
    """Return whether all of some int64 numbers are one."""
    return bool((numbers == number).all())


def sum_rows(rows, total):
    """Sum the starts of rows, always in the same order.

    Args:
        rows: float64 array of shape (n, at least m) in host memory.
        total: float64 array of shape (m,); gets the sum.
    """
    total[:] = 0
    for row in rows:
        total += row[: total.size]


def merge_rows(rows, merged):
    """As :func:`sum_rows`, for moments that are merged (:func:`merge`)."""
    merged[:] = rows[0, : merged.size]
    for row in rows[1:]:
        merge(row[: merged.size], merged)


def mean_rows(rows, factor, mean):
    """Add up rows, always in the same order, and multiply by a factor.

    Args:
        rows: Array of shape (n, m) in host memory, float32 or float64.
        factor: What the sum is multiplied by, of the same dtype.
        mean: Array of shape (m,) of the same dtype; gets the result.
    """
    mean[:] = rows[0]
    for row in rows[1:]:
        mean += row
    mean *= factor


def finish_statistics(count, mean, m2, eps, running, decay):
    """Return 1 / sqrt(var + eps), and update the running statistics.

    Args:
        count: Elements of a channel, at least 1: a number, or an array of shape () or
            (c,).
        mean: float64 array of shape (c,).
        m2: float64 array of shape (c,), count * var.
        eps (float): Added to the variance.
        running (tuple): Running mean and variance, updated in place, the latter by the
            unbiased variance: arrays of c elements, float16, float32 or float64. Or
            two times ``None``.
        decay (float): Share of them that is kept.

    Returns:
        float64 array of shape (c,).
    """
    var = m2 / count
    running_mean, running_var = running
    if running_mean is not None:
        unbiased = var * correction(count)
        update_running(running_mean, mean.reshape(running_mean.shape), decay)
        update_running(running_var, unbiased.reshape(running_var.shape), decay)
    return 1 / (var + eps) ** 0.5


def normalize_batch(
    x, count, mean, m2, eps, gamma, beta, running, decay, relu=False, groups=WHOLE
):
    """Return what :func:`normalize` and :func:`finish_statistics` do.

    Args:
        x, gamma, beta, relu, groups: As for :func:`normalize`.
        count: As for :func:`finish_statistics`, or ``None`` for the elements of each
            group of ``x``, in which case no group may be empty.
        mean, m2, eps, running, decay: As for :func:`finish_statistics`.

    Returns:
        tuple: y, of the shape and dtype of ``x``, and 1 / sqrt(var + eps), float64 of
        shape (groups.count * c,).
    """
    count = counts(x, count, groups)
    inv_std = finish_statistics(count, mean, m2, eps, running, decay)
    return normalize(x, mean, inv_std, gamma, beta, relu, groups), inv_std


def normalize(x, mean, inv_std, gamma, beta, relu=False, groups=WHOLE):
    """Return ``(x - mean) * inv_std * gamma + beta`` in the dtype of ``x``.

    Args:
        x: Array of shape (n, c, s).
        mean: float64 array of shape (groups.count * c,).
        inv_std: float64 array of shape (groups.count * c,).
        gamma: Array of c elements, float16, float32 or float64.
        beta: Likewise.
        relu (bool): Whether to return 0 where that is negative.
        groups (Groups): Of the rows; each has statistics of its own.
    """
    y = _affine(x, mean, inv_std, gamma, beta, groups)
    if relu:
        y[y <= 0] = 0  # a NaN stays
    return y.astype(x.dtype, copy=False)


def _affine(x, mean, inv_std, gamma, beta, groups):
    scales = per_row(scale(inv_std, gamma), x, groups)
    return _centred(x, mean, groups) * scales + wide(beta)[:, None]


def _passed(gy, x, mean, inv_std, relu_of, groups):
    """Return what ReLU, where there is one, lets pass of the gradient of its output."""
    if relu_of is None:
        return gy
    xp = backend.get_array_module(x)
    y = _affine(x, mean, inv_std, *relu_of, groups)
    return xp.where(y > 0, gy, gy.dtype.type(0))


def scale(inv_std, gamma):
    """Return ``gamma * inv_std``, float64 of the shape of ``inv_std``."""
    gamma = wide(gamma)
    if gamma.size == inv_std.size:
        return gamma * inv_std
    return (gamma * inv_std.reshape(-1, gamma.size)).ravel()


def wide(v):
    """Return the c elements of an array of parameters as float64 of shape (c,)."""
    return v.ravel().astype(numpy.float64)


def gradient_sums(x, gy, mean, inv_std, dtype, relu_of=None, groups=WHOLE):
    """Sum ``gy`` and ``gy * x_hat`` over n and s, x_hat = (x - mean) * inv_std.

    Args:
        x: Array of shape (n, c, s).
        gy: Array of shape (n, c, s), the gradient of the output.
        mean: float64 array of shape (groups.count * c,).
        inv_std: float64 array of shape (groups.count * c,).
        dtype: Of the parameters.
        relu_of (tuple or None): gamma and beta, if the output went through ReLU; gy is
            0 then where that gave 0.
        groups (Groups): Of the rows; each has statistics of its own.

    Returns:
        tuple: The sums of gy, then of gy * x_hat, of each group: a float64 array of
        shape (2 * groups.count * c,); and their sums over the groups as an array of
        shape (2, c) of ``dtype``: the gradients of beta and gamma.
    """
    g = _passed(gy, x, mean, inv_std, relu_of, groups).astype(numpy.float64)
    sum_gy_d = _sum_rows(g * _centred(x, mean, groups), groups)
    xp = backend.get_array_module(x)
    sums = xp.stack([_sum_rows(g, groups), sum_gy_d * inv_std])
    return sums.ravel(), over_groups(sums, x.shape[1]).astype(dtype)


def input_gradient(
    x, gy, mean, inv_std, gamma, total, count, relu_of=None, groups=WHOLE
):
    """Return ``gamma * inv_std * (gy - mean(gy) - x_hat * mean(gy * x_hat))``.

    The means are those of the global batch, or of the group, and the result has the
    dtype of ``x``.

    Args:
        x: Array of shape (n, c, s).
        gy: Array of shape (n, c, s), the gradient of the output.
        mean: float64 array of shape (groups.count * c,).
        inv_std: float64 array of shape (groups.count * c,).
        gamma: Array of c elements, float16, float32 or float64.
        total: float64 array of shape (2 * groups.count * c,): over the global batch,
            the sums of gy, then of gy * x_hat.
        count: Elements of a channel of the global batch, at least 1: a number or an
            array of shape (); or ``None`` for those of each group of ``x``.
        relu_of (tuple or None): As in :func:`gradient_sums`.
        groups (Groups): Of the rows; each has statistics of its own.
    """
    mean_gy, slope = slopes(inv_std, total, counts(x, count, groups))
    gy = _passed(gy, x, mean, inv_std, relu_of, groups)
    slope = per_row(slope, x, groups)
    g = _centred(gy, mean_gy, groups) - _centred(x, mean, groups) * slope
    scales = per_row(scale(inv_std, gamma), x, groups)
    return (g * scales).astype(x.dtype, copy=False)


def slopes(inv_std, total, count):
    """Return the mean of gy, and what is subtracted for a unit of ``x - mean``."""
    mean_gy, mean_gy_x_hat = total.reshape(2, -1) / count
    return mean_gy, inv_std * mean_gy_x_hat


def update_running(running, fresh, decay):
    """Set ``running`` to ``decay * running + (1 - decay) * fresh`` in place.

    Args:
        running: Array of any shape, float16, float32 or float64.
        fresh: float64 array of the same shape.
        decay (float): Share that is kept.
    """
    running *= decay
    running += (1 - decay) * fresh
