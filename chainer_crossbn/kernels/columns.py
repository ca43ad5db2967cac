"""Convolution for CPUs by matrix products, on one cache-sized block at a time.

Any kernel size, stride and pad. As in im2col + GEMM (Chellapilla, Puri and Simard,
2006), but the columns of the whole mini-batch are never there at once, and images have
their channels last in memory.
"""

from typing import NamedTuple

import numpy

from chainer_crossbn.kernels.compilation import compiled
from chainer_crossbn.kernels.memory import as_channels_first, channels_last

_BLOCK_BYTES = 1 << 20


@compiled(False)
def _gather(x, c, kh, kw, sy, sx, ph, pw, top, cols):
    """cols[b, p, q, i, j * c + k] = x[b, r * sy + i - ph, (q * sx + j - pw) * c + k].

    It is 0 where that is outside. What comes of one row of x lies side by side. The row
    r of the output is top + p.
    """
    h, line = x.shape[1:]
    b, rows, ow = cols.shape[:3]
    for n in range(b):
        for p in range(rows):
            for q in range(ow):
                start = (q * sx - pw) * c
                first = min(max(0, -start), kw * c)
                end = max(first, min(kw * c, line - start))
                for i in range(kh):
                    row = (top + p) * sy + i - ph
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
def _scatter(cols, c, kh, kw, sy, sx, ph, pw, top, gx):
    """The transpose of _gather: add each column to where it came from."""
    h, line = gx.shape[1:]
    b, rows, ow = cols.shape[:3]
    for n in range(b):
        for p in range(rows):
            for q in range(ow):
                start = (q * sx - pw) * c
                first = min(max(0, -start), kw * c)
                end = max(first, min(kw * c, line - start))
                for i in range(kh):
                    row = (top + p) * sy + i - ph
                    if 0 <= row < h:
                        into = gx[n, row, start + first : start + end]
                        of = cols[n, p, q, i, first:end]
                        for k in range(into.size):
                            into[k] += of[k]


def _output(x_shape, w_shape, stride, pad):
    """Return the sides of the output."""
    return tuple(
        (x_shape[i] + 2 * p - w_shape[i]) // s + 1
        for i, s, p in zip((2, 3), stride, pad)
    )


class _Block(NamedTuple):
    """Some whole images, or some rows of the output of one."""

    images: slice
    rows: slice


class _Columns:
    """Blocks of the output, and the columns of one of them."""

    def __init__(self, n, w_shape, output, dtype):
        c, kh, kw = w_shape[1:]
        oh, ow = output
        row = max(c * kh * kw * ow * dtype.itemsize, 1)
        images = max(1, min(n, _BLOCK_BYTES // (row * oh)))
        rows = max(1, min(oh, _BLOCK_BYTES // row))
        self.blocks = [
            _Block(slice(i, min(i + images, n)), slice(top, min(top + rows, oh)))
            for i in range(0, n, images)
            for top in range(0, oh, rows)
        ]
        self._all = numpy.empty(images * rows * ow * kh * kw * c, dtype)
        self._shape = ow, kh, kw * c

    def of(self, block):
        """Return the columns of a block, and the same as a matrix."""
        ow, kh, line = self._shape
        n, rows = (part.stop - part.start for part in block)
        size = n * rows * ow * kh * line
        cols = self._all[:size].reshape(n, rows, ow, kh, line)
        return cols, cols.reshape(n * rows * ow, kh * line)


def _lines(x):
    """Return images (n, h, w, c) as an array (n, h, w * c)."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w * c)


def convolve(x, w, bias, stride, pad):
    output = _output(x.shape, w.shape, stride, pad)
    columns = _Columns(len(x), w.shape, output, x.dtype)
    lines, weights = _lines(channels_last(x)), channels_last(w).reshape(len(w), -1).T
    y = numpy.empty((len(x), *output, len(w)), x.dtype)
    for block in columns.blocks:
        cols, matrix = columns.of(block)
        where = (*w.shape[1:], *stride, *pad, block.rows.start)
        _gather(lines[block.images], *where, cols)
        numpy.matmul(matrix, weights, out=y[block].reshape(-1, len(w)))
    if bias is not None:
        y += bias
    return as_channels_first(y)


def gradient_of_input(gy, w, x_shape, stride, pad):
    output = _output(x_shape, w.shape, stride, pad)
    columns = _Columns(len(gy), w.shape, output, gy.dtype)
    gy, weights = channels_last(gy), channels_last(w).reshape(len(w), -1)
    n, c, height, width = x_shape
    gx = numpy.zeros((n, height, width, c), gy.dtype)
    lines = _lines(gx)
    for block in columns.blocks:
        cols, matrix = columns.of(block)
        numpy.matmul(gy[block].reshape(-1, len(w)), weights, out=matrix)
        where = (*w.shape[1:], *stride, *pad, block.rows.start)
        _scatter(cols, *where, lines[block.images])
    return as_channels_first(gx)


def gradient_of_filters(x, gy, w_shape, stride, pad):
    output = _output(x.shape, w_shape, stride, pad)
    columns = _Columns(len(x), w_shape, output, x.dtype)
    lines, gy = _lines(channels_last(x)), channels_last(gy)
    k, c, kh, kw = w_shape
    gw = numpy.zeros((k, c * kh * kw), x.dtype)
    for block in columns.blocks:
        cols, matrix = columns.of(block)
        where = (*w_shape[1:], *stride, *pad, block.rows.start)
        _gather(lines[block.images], *where, cols)
        gw += gy[block].reshape(-1, k).T @ matrix
    return numpy.ascontiguousarray(as_channels_first(gw.reshape(k, kh, kw, c)))
