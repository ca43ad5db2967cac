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
def _gather(x, kh, kw, sy, sx, ph, pw, oh, ow, cols):
    """cols[b, p, q, c, i, j] = x[b, p * sy + i - ph, q * sx + j - pw, c], or 0."""
    b, h, w, c = x.shape
    for n in range(b):
        for p in range(oh):
            for q in range(ow):
                for i in range(kh):
                    row = p * sy + i - ph
                    for j in range(kw):
                        col = q * sx + j - pw
                        if 0 <= row < h and 0 <= col < w:
                            for k in range(c):
                                cols[n, p, q, k, i, j] = x[n, row, col, k]
                        else:
                            for k in range(c):
                                cols[n, p, q, k, i, j] = 0


@compiled(False)
def _scatter(cols, kh, kw, sy, sx, ph, pw, oh, ow, gx):
    """The transpose of _gather: add each column to where it came from."""
    b, h, w, c = gx.shape
    gx[:] = 0
    for n in range(b):
        for p in range(oh):
            for q in range(ow):
                for i in range(kh):
                    row = p * sy + i - ph
                    for j in range(kw):
                        col = q * sx + j - pw
                        if 0 <= row < h and 0 <= col < w:
                            for k in range(c):
                                gx[n, row, col, k] += cols[n, p, q, k, i, j]


def _geometry(x_shape, w_shape, stride, pad):
    (kh, kw), (sy, sx), (ph, pw) = w_shape[2:], stride, pad
    oh = (x_shape[2] + 2 * ph - kh) // sy + 1
    ow = (x_shape[3] + 2 * pw - kw) // sx + 1
    return (kh, kw, sy, sx, ph, pw, oh, ow)


class _Columns:
    """Blocks of images, and the columns of one of them."""

    def __init__(self, x_shape, geometry, dtype):
        kh, kw, *_, oh, ow = geometry
        n, c = x_shape[:2]
        image = c * kh * kw * oh * ow * dtype.itemsize
        size = max(1, min(n, _BLOCK_BYTES // max(image, 1)))
        self.blocks = [slice(i, min(i + size, n)) for i in range(0, n, size)]
        self._all = numpy.empty((size, oh, ow, c, kh, kw), dtype)

    def of(self, part):
        """Return the columns of a block, and the same as a matrix."""
        cols = self._all[: len(part)]
        rows, width = numpy.prod(cols.shape[:3]), numpy.prod(cols.shape[3:])
        return cols, cols.reshape(rows, width)


def convolve(x, w, bias, stride, pad):
    geometry = _geometry(x.shape, w.shape, stride, pad)
    columns = _Columns(x.shape, geometry, x.dtype)
    x, weights = channels_last(x), w.reshape(len(w), -1).T
    y = numpy.empty((len(x), *geometry[-2:], len(w)), x.dtype)
    for block in columns.blocks:
        cols, matrix = columns.of(x[block])
        _gather(x[block], *geometry, cols)
        numpy.matmul(matrix, weights, out=y[block].reshape(-1, len(w)))
    if bias is not None:
        y += bias
    return as_channels_first(y)


def gradient_of_input(gy, w, x_shape, stride, pad):
    geometry = _geometry(x_shape, w.shape, stride, pad)
    columns = _Columns(x_shape, geometry, gy.dtype)
    gy, weights = channels_last(gy), w.reshape(len(w), -1)
    n, c, height, width = x_shape
    gx = numpy.empty((n, height, width, c), gy.dtype)
    for block in columns.blocks:
        cols, matrix = columns.of(gx[block])
        numpy.matmul(gy[block].reshape(-1, len(w)), weights, out=matrix)
        _scatter(cols, *geometry, gx[block])
    return as_channels_first(gx)


def gradient_of_filters(x, gy, w_shape, stride, pad):
    geometry = _geometry(x.shape, w_shape, stride, pad)
    columns = _Columns(x.shape, geometry, x.dtype)
    x, gy = channels_last(x), channels_last(gy)
    k = w_shape[0]
    gw = numpy.empty((k, numpy.prod(w_shape[1:])), x.dtype)
    if not columns.blocks:
        gw[:] = 0
    for block in columns.blocks:
        cols, matrix = columns.of(x[block])
        _gather(x[block], *geometry, cols)
        gradient = gy[block].reshape(-1, k).T
        if block.start == 0:
            numpy.matmul(gradient, matrix, out=gw)
        else:
            gw += gradient @ matrix
    return gw.reshape(w_shape)
