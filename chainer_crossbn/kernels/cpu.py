"""The kernels for NumPy arrays, compiled by Numba: one pass over memory each.

``reassoc`` lets the sums vectorize; each row of s positions is summed apart first, so
that rounding errors stay small.
"""

import numba
import numpy

_SUM = {"reassoc", "contract", "nsz", "arcp"}


def _compiled(fastmath):
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}

    def decorate(function):
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no directory that the cache can be written into
            return numba.njit(**options)(function)

    return decorate


@_compiled(_SUM)
def _sums(x, sum_x, sum_xx):
    n, c, s = x.shape
    for i in range(n):
        for k in range(c):
            a = 0.0
            b = 0.0
            for j in range(s):
                v = numpy.float64(x[i, k, j])
                a += v
                b += v * v
            sum_x[k] += a
            sum_xx[k] += b


@_compiled({"contract"})
def _normalize(x, mean, scale, shift, y):
    n, c, s = x.shape
    for i in range(n):
        for k in range(c):
            m, a, b = mean[k], scale[k], shift[k]
            for j in range(s):
                y[i, k, j] = (x[i, k, j] - m) * a + b


@_compiled(_SUM)
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


@_compiled({"contract"})
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


def sums(x):
    """As :func:`chainer_crossbn.kernels.gpu.sums`."""
    c = x.shape[1]
    sum_x, sum_xx = numpy.zeros(c), numpy.zeros(c)
    _sums(_compilable(x), sum_x, sum_xx)
    return sum_x, sum_xx


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
