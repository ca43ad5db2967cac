"""The kernels in array operations, for whatever NumPy's API fits.

They serve where no compiled ones can, and say what those of :mod:`cpu` and :mod:`gpu`
do.
"""

import numpy
from chainer import backend


def _centred(x, mean):
    return x.astype(numpy.float64) - mean[:, None]


def moments(x):
    """Return mean and M2, the sum of ``(x - mean)**2``, over n and s.

    Args:
        x: Array of shape (n, c, s), float16, float32 or float64.

    Returns:
        tuple: two float64 arrays of shape (c,); zeros where n or s is 0.
    """
    count = max(x.shape[0] * x.shape[2], 1)
    mean = x.astype(numpy.float64).sum(axis=(0, 2)) / count
    return mean, (_centred(x, mean) ** 2).sum(axis=(0, 2))


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
        count: Elements of a channel, at least 1: a number or an array of shape ().
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
        xp = backend.get_array_module(m2)
        unbiased = var * (count / xp.maximum(count - 1, 1))
        update_running(running_mean, mean.reshape(running_mean.shape), decay)
        update_running(running_var, unbiased.reshape(running_var.shape), decay)
    return 1 / (var + eps) ** 0.5


def normalize_batch(x, count, mean, m2, eps, gamma, beta, running, decay, relu=False):
    """Return what :func:`normalize` and :func:`finish_statistics` do.

    Args:
        x, gamma, beta, relu: As for :func:`normalize`.
        count, mean, m2, eps, running, decay: As for :func:`finish_statistics`.

    Returns:
        tuple: y, of the shape and dtype of ``x``, and 1 / sqrt(var + eps), float64 of
        shape (c,).
    """
    inv_std = finish_statistics(count, mean, m2, eps, running, decay)
    return normalize(x, mean, inv_std, gamma, beta, relu), inv_std


def normalize(x, mean, inv_std, gamma, beta, relu=False):
    """Return ``(x - mean) * inv_std * gamma + beta`` in the dtype of ``x``.

    Args:
        x: Array of shape (n, c, s).
        mean: float64 array of shape (c,).
        inv_std: float64 array of shape (c,).
        gamma: Array of c elements, float16, float32 or float64.
        beta: Likewise.
        relu (bool): Whether to return 0 where that is negative.
    """
    y = _affine(x, mean, inv_std, gamma, beta)
    if relu:
        y[y <= 0] = 0  # a NaN stays
    return y.astype(x.dtype, copy=False)


def _affine(x, mean, inv_std, gamma, beta):
    return _centred(x, mean) * scale(inv_std, gamma)[:, None] + wide(beta)[:, None]


def _passed(gy, x, mean, inv_std, relu_of):
    """Return what ReLU, where there is one, lets pass of the gradient of its output."""
    if relu_of is None:
        return gy
    xp = backend.get_array_module(x)
    return xp.where(_affine(x, mean, inv_std, *relu_of) > 0, gy, gy.dtype.type(0))


def scale(inv_std, gamma):
    """Return ``gamma * inv_std``, float64 of shape (c,)."""
    return wide(gamma) * inv_std


def wide(v):
    """Return the c elements of an array of parameters as float64 of shape (c,)."""
    return v.ravel().astype(numpy.float64)


def gradient_sums(x, gy, mean, inv_std, dtype, relu_of=None):
    """Sum ``gy`` and ``gy * x_hat`` over n and s, x_hat = (x - mean) * inv_std.

    Args:
        x: Array of shape (n, c, s).
        gy: Array of shape (n, c, s), the gradient of the output.
        mean: float64 array of shape (c,).
        inv_std: float64 array of shape (c,).
        dtype: Of the parameters.
        relu_of (tuple or None): gamma and beta, if the output went through ReLU; gy is
            0 then where that gave 0.

    Returns:
        tuple: The sums of gy, then of gy * x_hat, a float64 array of shape (2 * c,);
        and the same as an array of shape (2, c) of ``dtype``: the gradients of beta
        and gamma.
    """
    g = _passed(gy, x, mean, inv_std, relu_of).astype(numpy.float64)
    sum_gy_d = (g * _centred(x, mean)).sum(axis=(0, 2))
    xp = backend.get_array_module(x)
    sums = xp.stack([g.sum(axis=(0, 2)), sum_gy_d * inv_std])
    return sums.ravel(), sums.astype(dtype)


def input_gradient(x, gy, mean, inv_std, gamma, total, count, relu_of=None):
    """Return ``gamma * inv_std * (gy - mean(gy) - x_hat * mean(gy * x_hat))``.

    The means are those of the global batch, and the result has the dtype of ``x``.

    Args:
        x: Array of shape (n, c, s).
        gy: Array of shape (n, c, s), the gradient of the output.
        mean: float64 array of shape (c,).
        inv_std: float64 array of shape (c,).
        gamma: Array of c elements, float16, float32 or float64.
        total: float64 array of shape (2 * c,): over the global batch, the sums of gy,
            then of gy * x_hat.
        count: Elements of a channel of the global batch, at least 1: a number or an
            array of shape ().
        relu_of (tuple or None): As in :func:`gradient_sums`.
    """
    mean_gy, slope = slopes(inv_std, total, count)
    gy = _passed(gy, x, mean, inv_std, relu_of)
    g = _centred(gy, mean_gy) - _centred(x, mean) * slope[:, None]
    return (g * scale(inv_std, gamma)[:, None]).astype(x.dtype, copy=False)


def slopes(inv_std, total, count):
    """Return the mean of gy, and what is subtracted for a unit of ``x - mean``."""
    mean_gy, mean_gy_x_hat = (total / count).reshape(2, -1)
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
