"""The kernels in array operations, for CuPy arrays (and any that NumPy's API fits)."""

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


def normalize(x, mean, scale, shift):
    """Return ``(x - mean) * scale + shift`` in the dtype of ``x``.

    Args:
        x: Array of shape (n, c, s).
        mean: float64 array of shape (c,).
        scale: float64 array of shape (c,), gamma / sqrt(var + eps).
        shift: float64 array of shape (c,), beta.
    """
    y = _centred(x, mean) * scale[:, None] + shift[:, None]
    return y.astype(x.dtype, copy=False)


def gradient_sums(x, gy, mean, inv_std):
    """Sum ``gy`` and ``gy * x_hat`` over n and s, x_hat = (x - mean) * inv_std.

    Args:
        x: Array of shape (n, c, s).
        gy: Array of shape (n, c, s), the gradient of the output.
        mean: float64 array of shape (c,).
        inv_std: float64 array of shape (c,).

    Returns:
        float64 array of shape (2, c).
    """
    g = gy.astype(numpy.float64)
    sum_gy_d = (g * _centred(x, mean)).sum(axis=(0, 2))
    xp = backend.get_array_module(x)
    return xp.stack([g.sum(axis=(0, 2)), sum_gy_d * inv_std])


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
    slope = inv_std * mean_gy_x_hat
    g = _centred(gy, mean_gy) - _centred(x, mean) * slope[:, None]
    return (g * scale[:, None]).astype(x.dtype, copy=False)


def update_running(running, fresh, decay):
    """Set ``running`` to ``decay * running + (1 - decay) * fresh`` in place.

    Args:
        running: Array of any shape, float16, float32 or float64.
        fresh: float64 array of the same shape.
        decay (float): Share that is kept.
    """
    running *= decay
    running += (1 - decay) * fresh
