"""The kernels in array operations, for CuPy and, where there is no Numba, NumPy.

Arithmetic is float64 whatever the input, one block of channels at a time so that
the float64 copies stay small.
"""

import numpy
from chainer import backend

_BLOCK_ELEMENTS = 1 << 16


def _blocks(x):
    n, c, s = x.shape
    step = c if backend.get_array_module(x) is not numpy else 0
    step = step or max(1, _BLOCK_ELEMENTS // max(1, n * s))
    return (slice(i, i + step) for i in range(0, c, step))


def _centred(x, mean, block):
    return x[:, block].astype(numpy.float64) - mean[block, None]


def sums(x):
    """Sum the elements and their squares over n and s.

    Args:
        x: Array of shape (n, c, s), float16, float32 or float64.

    Returns:
        tuple: two float64 arrays of shape (c,).
    """
    xp = backend.get_array_module(x)
    sum_x = xp.zeros(x.shape[1], dtype=numpy.float64)
    sum_xx = xp.zeros(x.shape[1], dtype=numpy.float64)
    for block in _blocks(x):
        v = x[:, block].astype(numpy.float64)
        sum_x[block] = v.sum(axis=(0, 2))
        sum_xx[block] = (v * v).sum(axis=(0, 2))
    return sum_x, sum_xx


def normalize(x, mean, scale, shift):
    """Return ``(x - mean) * scale + shift`` in the dtype of ``x``.

    Args:
        x: Array of shape (n, c, s).
        mean: float64 array of shape (c,).
        scale: float64 array of shape (c,), gamma / sqrt(var + eps).
        shift: float64 array of shape (c,), beta.
    """
    y = backend.get_array_module(x).empty(x.shape, dtype=x.dtype)
    for block in _blocks(x):
        d = _centred(x, mean, block)
        y[:, block] = d * scale[block, None] + shift[block, None]
    return y


def gradient_sums(x, gy, mean, inv_std):
    """Sum ``gy`` and ``gy * x_hat`` over n and s, x_hat = (x - mean) * inv_std.

    Args:
        x: Array of shape (n, c, s).
        gy: Array of shape (n, c, s), the gradient of the output.
        mean: float64 array of shape (c,).
        inv_std: float64 array of shape (c,).

    Returns:
        tuple: two float64 arrays of shape (c,).
    """
    xp = backend.get_array_module(x)
    sum_gy = xp.zeros(x.shape[1], dtype=numpy.float64)
    sum_gy_x_hat = xp.zeros(x.shape[1], dtype=numpy.float64)
    for block in _blocks(x):
        g = gy[:, block].astype(numpy.float64)
        sum_gy[block] = g.sum(axis=(0, 2))
        sum_gy_x_hat[block] = (g * _centred(x, mean, block)).sum(axis=(0, 2))
    return sum_gy, sum_gy_x_hat * inv_std


def input_gradient(x, gy, mean, inv_std, scale, mean_gy, mean_gy_x_hat):
    """Return ``scale * (gy - mean_gy - x_hat * mean_gy_x_hat)`` in the dtype of ``x``.

    Args:
        x: Array of shape (n, c, s).
        gy: Array of shape (n, c, s), the gradient of the output.
        mean: float64 array of shape (c,).
        inv_std: float64 array of shape (c,).
        scale: float64 array of shape (c,), gamma * inv_std.
        mean_gy: float64 array of shape (c,), the mean of gy over the global batch.
        mean_gy_x_hat: float64 array of shape (c,), likewise of gy * x_hat.
    """
    gx = backend.get_array_module(x).empty(x.shape, dtype=x.dtype)
    slope = inv_std * mean_gy_x_hat
    for block in _blocks(x):
        g = gy[:, block].astype(numpy.float64) - mean_gy[block, None]
        g -= _centred(x, mean, block) * slope[block, None]
        gx[:, block] = g * scale[block, None]
    return gx
