"""Products of few rows with a large matrix, on CPUs: linear layers, small maps.

BLAS copies the large matrix in an order that suits it, and passes twice over a large
result. For few rows that takes longer than the product itself, which here is one pass
over memory, by one thread. In float32 errors are some 1e-6 of the largest element.
"""

import numpy

from chainer_crossbn.kernels.cpu.compilation import REORDERED, compiled

# Measured beside OpenBLAS of one thread with AVX-512. Smaller matrices stay in the
# cache.
_FEW = 8
_LARGE = 1 << 20
# Of a result that the cache holds BLAS makes its second pass there.
_FEW_AND_CACHED = 2
_CACHED = 1 << 23


@compiled(REORDERED)
def _dot_products(x, w, y):
    """y[n, i] = sum of x[n] * w[i]"""
    rows, k = x.shape
    for i in range(len(w)):
        of = w[i]
        n = 0
        while n + 4 <= rows:
            a, b, c, d = x[n], x[n + 1], x[n + 2], x[n + 3]
            of_a = of_b = of_c = of_d = x.dtype.type(0)
            for j in range(k):
                of_a += a[j] * of[j]
                of_b += b[j] * of[j]
                of_c += c[j] * of[j]
                of_d += d[j] * of[j]
            y[n, i], y[n + 1, i], y[n + 2, i], y[n + 3, i] = of_a, of_b, of_c, of_d
            n += 4
        while n + 2 <= rows:
            a, b = x[n], x[n + 1]
            of_a = of_b = x.dtype.type(0)
            for j in range(k):
                of_a += a[j] * of[j]
                of_b += b[j] * of[j]
            y[n, i], y[n + 1, i] = of_a, of_b
            n += 2
        if n < rows:
            a = x[n]
            of_a = x.dtype.type(0)
            for j in range(k):
                of_a += a[j] * of[j]
            y[n, i] = of_a


@compiled({"contract"})
def _combinations(factors, rows, block, out):
    """out[n] = sum over i of factors[n, i] * rows[i], for a block of n at a time."""
    n_rows, k = rows.shape
    for top in range(0, len(out), block):
        block_of_out = range(top, min(top + block, len(out)))
        i = n_rows % 4
        for n in block_of_out:
            into, f = out[n], factors[n]
            if i == 0:
                into[:] = 0
            elif i == 1:
                a = rows[0]
                for j in range(k):
                    into[j] = f[0] * a[j]
            elif i == 2:
                a, b = rows[0], rows[1]
                for j in range(k):
                    into[j] = f[0] * a[j] + f[1] * b[j]
            else:
                a, b, c = rows[0], rows[1], rows[2]
                for j in range(k):
                    into[j] = f[0] * a[j] + f[1] * b[j] + f[2] * c[j]
        while i < n_rows:
            a, b, c, d = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
            for n in block_of_out:
                into, f = out[n], factors[n]
                p, q, s, t = f[i], f[i + 1], f[i + 2], f[i + 3]
                for j in range(k):
                    into[j] += (p * a[j] + q * b[j]) + (s * c[j] + t * d[j])
            i += 4


def forward(x, w, out=None):
    """Return ``x @ w.T``.

    Args:
        x: C-contiguous array of shape (n, k), float32 or float64.
        w: C-contiguous array of shape (m, k), of the same dtype.
        out: Array of shape (n, m) to return it in.
    """
    if w.size < _LARGE or len(x) > _FEW:
        return numpy.matmul(x, w.T, out=out)
    if out is None:
        out = numpy.empty((len(x), len(w)), x.dtype)
    _dot_products(x, w, out)
    return out


def gradient_of_input(gy, w, out=None):
    """Return ``gy @ w``.

    Args:
        gy: C-contiguous array of shape (n, m), float32 or float64.
        w: C-contiguous array of shape (m, k), of the same dtype.
        out: Array of shape (n, k) to return it in.
    """
    if w.size < _LARGE or len(gy) > _FEW:
        return numpy.matmul(gy, w, out=out)
    if out is None:
        out = numpy.empty((len(gy), w.shape[1]), gy.dtype)
    _combinations(gy, w, max(len(gy), 1), out)
    return out


def gradient_of_weights(x, gy):
    """Return ``gy.T @ x``.

    Args:
        x: C-contiguous array of shape (n, k), float32 or float64.
        gy: C-contiguous array of shape (n, m), of the same dtype.
    """
    shape = gy.shape[1], x.shape[1]
    size = shape[0] * shape[1]
    few = _FEW_AND_CACHED if size < _CACHED else _FEW
    if size < _LARGE or len(x) > few:
        return numpy.matmul(gy.T, x)
    gw = numpy.empty(shape, x.dtype)
    _combinations(gy.T, x, 1, gw)
    return gw


def precompile(dtype):
    """Compile what few rows go through.

    Args:
        dtype: Of the arrays.
    """
    square = numpy.zeros((2, 2), dtype)  # whose transpose is in another order
    _dot_products(square, square, square.copy())
    for factors in (square, square.T):
        _combinations(factors, square, 1, square.copy())
