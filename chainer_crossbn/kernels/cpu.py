"""The kernels for NumPy arrays, compiled by Numba: one pass over memory each.

``reassoc`` lets the sums vectorize; each row of s positions is summed apart first, so
that rounding errors stay small. Moments are sums about a pivot, the mean of the first
row of the channel.
"""

import numpy

from chainer_crossbn.kernels.compilation import REORDERED, compiled


@compiled(REORDERED)
def _moments(x, mean, m2):
    n, c, s = x.shape
    if n * s == 0:
        return
    pivot = numpy.zeros(c)
    for k in range(c):
        for j in range(s):
            pivot[k] += x[0, k, j]
        pivot[k] /= s
    again = True
    while again:
        for i in range(n):
            for k in range(c):
                p = pivot[k]
                a = 0.0
                b = 0.0
                for j in range(s):
                    d = x[i, k, j] - p
                    a += d
                    b += d * d
                mean[k] += a
                m2[k] += b
        again = False
        for k in range(c):
            shift = mean[k] / (n * s)
            lost = shift * shift * (n * s)
            mean[k] = pivot[k] + shift
            m2[k] -= lost
            # What rounding left below 0; a NaN stays.
            if m2[k] < 0:
                m2[k] = 0
            # The first row was far from all others: the mean is the better pivot.
            if lost > 1e3 * m2[k] and abs(shift) > 1e-9 * abs(mean[k]):
                again = True
        if again:
            pivot[:] = mean
            mean[:] = 0
            m2[:] = 0


# No fastmath: all ranks must get the same bits, whichever of two comes first.
@compiled(False)
def _merge(a, b):
    n, m = a[0], b[0]
    if n == 0:
        return
    if m == 0:
        b[:] = a
        return
    total = n + m
    weight = n * m / total
    c = a.size // 2
    for k in range(1, c + 1):
        d = a[k] - b[k]
        b[c + k] = a[c + k] + b[c + k] + d * d * weight
        b[k] = (n * a[k] + m * b[k]) / total
    b[0] = total


@compiled({"contract"})
def _normalize(x, mean, scale, shift, y):
    n, c, s = x.shape
    for i in range(n):
        for k in range(c):
            m, a, b = mean[k], scale[k], shift[k]
            for j in range(s):
                y[i, k, j] = (x[i, k, j] - m) * a + b


@compiled(REORDERED)
def _gradient_sums(x, gy, mean, sum_gy, sum_gy_d):
    n, c, s = x.shape
    for i in range(n):
        for k in range(c):
            m = mean[k]
            a = 0.0
            b = 0.0
            for j in range(s):
                g = numpy.float64(gy[i, k, j])
                a += g
                b += g * (x[i, k, j] - m)
            sum_gy[k] += a
            sum_gy_d[k] += b


@compiled({"contract"})
def _input_gradient(x, gy, mean, slope, scale, mean_gy, gx):
    n, c, s = x.shape
    for i in range(n):
        for k in range(c):
            m, t, a, b = mean[k], slope[k], scale[k], mean_gy[k]
            for j in range(s):
                gx[i, k, j] = (gy[i, k, j] - b - (x[i, k, j] - m) * t) * a


def _compilable(x):
    # Numba has no float16 on CPUs.
    return numpy.ascontiguousarray(x, numpy.float32 if x.dtype.char == "e" else x.dtype)


def moments(x):
    """As :func:`chainer_crossbn.kernels.gpu.moments`."""
    c = x.shape[1]
    mean, m2 = numpy.zeros(c), numpy.zeros(c)
    _moments(_compilable(x), mean, m2)
    return mean, m2


def merge(a, b):
    """Merge the moments of two mini-batches, in place of the second.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances" (1979). Commutative to the bit.

    Args:
        a: float64 array of shape (1 + 2c,): count, means and M2 of c channels.
        b: Likewise; gets the moments of both.
    """
    _merge(a, b)


def normalize(x, mean, scale, shift):
    """As :func:`chainer_crossbn.kernels.gpu.normalize`."""
    source = _compilable(x)
    y = numpy.empty_like(source)
    _normalize(source, mean, scale, shift, y)
    return y.astype(x.dtype, copy=False)


def gradient_sums(x, gy, mean, inv_std):
    """As :func:`chainer_crossbn.kernels.gpu.gradient_sums`."""
    c = x.shape[1]
    sum_gy, sum_gy_d = numpy.zeros(c), numpy.zeros(c)
    _gradient_sums(_compilable(x), _compilable(gy), mean, sum_gy, sum_gy_d)
    return sum_gy, sum_gy_d * inv_std


def input_gradient(x, gy, mean, inv_std, scale, mean_gy, mean_gy_x_hat):
    """As :func:`chainer_crossbn.kernels.gpu.input_gradient`."""
    source = _compilable(x)
    gx = numpy.empty_like(source)
    _input_gradient(
        source, _compilable(gy), mean, inv_std * mean_gy_x_hat, scale, mean_gy, gx
    )
    return gx.astype(x.dtype, copy=False)
