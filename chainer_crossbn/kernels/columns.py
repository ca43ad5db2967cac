"""Convolution for CPUs by matrix products, on one cache-sized block at a time.

Any kernel size, stride and pad. As in im2col + GEMM (Chellapilla, Puri and Simard,
2006), but the columns of the whole mini-batch are never there at once, and images have
their channels last in memory.
"""

import numpy

from chainer_crossbn.kernels.compilation import compiled
from chainer_crossbn.kernels.memory import as_channels_first, channels_last

_BLOCK_BYTES = 1 << 20


@compiled(False)
def _gather(x, c, kh, kw, sy, sx, ph, pw, oh, ow, cols):
    """cols[b, p, q, i, j * c + k] = x[b, p * sy + i - ph, (q * sx + j - pw) * c + k].

    It is 0 where that is outside. What comes of one row of x lies side by side.
    """
    b, h, line = x.shape
    for n in range(b):
        for p in range(oh):
            for q in range(ow):
                start = (q * sx - pw) * c
                first = min(max(0, -start), kw * c)
                end = max(first, min(kw * c, line - start))
                for i in range(kh):
                    row = p * sy + i - ph
                    into = cols[n, p, q, i]
                    if not 0 <= row < h:
                        into[:] = 0
                        continue
                    # Slices, whose indices are seen to be positive, are vectorized.
                    inside, of = into[first:end], x[n, row, start + first : start + end]
                    for k in range(inside.size):
                        inside[k] = of[k]
                    for k in range(first):
                        into[k] = 0
                    rest = into[end:]
                    for k in range(rest.size):
                        rest[k] = 0


@compiled(False)
def _scatter(cols, c, kh, kw, sy, sx, ph, pw, oh, ow, gx):
    """The transpose of _gather: add each column to where it came from."""
    b, h, line = gx.shape
    gx[:] = 0
    for n in range(b):
        for p in range(oh):
            for q in range(ow):
                start = (q * sx - pw) * c
                first = min(max(0, -start), kw * c)
                end = max(first, min(kw * c, line - start))
                for i in range(kh):
                    row = p * sy + i - ph
                    if 0 <= row < h:
                        into = gx[n, row, start + first : start + end]
                        of = cols[n, p, q, i, first:end]
                        for k in range(into.size):
                            into[k] += of[k]


def _geometry(x_shape, w_shape, stride, pad):
    (c, kh, kw), (sy, sx), (ph, pw) = w_shape[1:], stride, pad
    oh = (x_shape[2] + 2 * ph - kh) // sy + 1
    ow = (x_shape[3] + 2 * pw - kw) // sx + 1
    return (c, kh, kw, sy, sx, ph, pw, oh, ow)


class _Columns:
    """Blocks of images, and the columns of one of them."""

    def __init__(self, n, geometry, dtype):
        c, kh, kw, *_, oh, ow = geometry
        image = c * kh * kw * oh * ow * dtype.itemsize
        size = max(1, min(n, _BLOCK_BYTES // max(image, 1)))
        self.blocks = [slice(i, min(i + size, n)) for i in range(0, n, size)]
        self._all = numpy.empty((size, oh, ow, kh, kw * c), dtype)

    def of(self, part):
        """Return the columns of a block, and the same as a matrix."""
        cols = self._all[: len(part)]
        rows, width = numpy.prod(cols.shape[:3]), numpy.prod(cols.shape[3:])
        return cols, cols.reshape(rows, width)


def _lines(x):
    """Return images (n, h, w, c) as an array (n, h, w * c)."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w * c)


def convolve(x, w, bias, stride, pad):
    geometry = _geometry(x.shape, w.shape, stride, pad)
    columns = _Columns(len(x), geometry, x.dtype)
    lines, weights = _lines(channels_last(x)), channels_last(w).reshape(len(w), -1).T
    y = numpy.empty((len(x), *geometry[-2:], len(w)), x.dtype)
    for block in columns.blocks:
        cols, matrix = columns.of(lines[block])
        _gather(lines[block], *geometry, cols)
        numpy.matmul(matrix, weights, out=y[block].reshape(-1, len(w)))
    if bias is not None:
        y += bias
    return as_channels_first(y)


def gradient_of_input(gy, w, x_shape, stride, pad):
    geometry = _geometry(x_shape, w.shape, stride, pad)
    columns = _Columns(len(gy), geometry, gy.dtype)
    gy, weights = channels_last(gy), channels_last(w).reshape(len(w), -1)
    n, c, height, width = x_shape
    gx = numpy.empty((n, height, width, c), gy.dtype)
    lines = _lines(gx)
    for block in columns.blocks:
        cols, matrix = columns.of(lines[block])
        numpy.matmul(gy[block].reshape(-1, len(w)), weights, out=matrix)
        _scatter(cols, *geometry, lines[block])
    return as_channels_first(gx)


def gradient_of_filters(x, gy, w_shape, stride, pad):
    geometry = _geometry(x.shape, w_shape, stride, pad)
    columns = _Columns(len(x), geometry, x.dtype)
    lines, gy = _lines(channels_last(x)), channels_last(gy)
    k, c, kh, kw = w_shape
    gw = numpy.empty((k, c * kh * kw), x.dtype)
    if not columns.blocks:
        gw[:] = 0
    for block in columns.blocks:
        cols, matrix = columns.of(lines[block])
        _gather(lines[block], *geometry, cols)
        gradient = gy[block].reshape(-1, k).T
        if block.start == 0:
            numpy.matmul(gradient, matrix, out=gw)
        else:
            gw += gradient @ matrix
    return numpy.ascontiguousarray(as_channels_first(gw.reshape(k, kh, kw, c)))
