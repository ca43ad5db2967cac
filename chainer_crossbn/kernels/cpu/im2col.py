"""Convolution for CPUs by matrix products, on one cache-sized block at a time.

Any kernel size, stride and pad. As in im2col + GEMM (Chellapilla, Puri and Simard,
2006), but the columns of the whole mini-batch are never there at once, and images have
their channels last in memory. The elements of a column are in that order, too, or in
that of the filters, whichever there is less to put in order for.
"""

from typing import NamedTuple

import numpy

from chainer_crossbn.kernels.cpu import matmul
from chainer_crossbn.kernels.cpu.compilation import compiled
from chainer_crossbn.kernels.cpu.memory import as_channels_first, channels_last

_BLOCK_BYTES = 1 << 20


def _by_row(gathers):
    """Return a function that gathers columns, or scatters them.

    It sets ``cols[b, p, q, i, j * c + k]`` to
    ``x[b, r * sy + i - ph, (q * sx + j - pw) * c + k]``, or to 0 where that is outside,
    for the row ``r = top + p`` of the output. What comes from one row of ``x`` is
    contiguous. To scatter is the transpose: each column is added to its place in ``x``.
    """

    @compiled(False)
    def transfer(x, c, kh, kw, sy, sx, ph, pw, top, cols):
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
                        column = cols[n, p, q, i]
                        if not 0 <= row < h:
                            if gathers:
                                column[:] = 0
                            continue
                        # Loops over slices, whose indices are known to be positive,
                        # are vectorized.
                        inside = column[first:end]
                        place = x[n, row, start + first : start + end]
                        if gathers:
                            for k in range(inside.size):
                                inside[k] = place[k]
                            for k in range(first):
                                column[k] = 0
                            rest = column[end:]
                            for k in range(rest.size):
                                rest[k] = 0
                        else:
                            for k in range(place.size):
                                place[k] += inside[k]

    return transfer


def _by_filter(gathers):
    """As :func:`_by_row`, for columns in the order of the filters.

    ``cols[b, p, q, k, i, j]`` is ``x[b, r * sy + i - ph, (q * sx + j - pw) * c + k]``.
    """

    @compiled(False)
    def transfer(x, c, kh, kw, sy, sx, ph, pw, top, cols):
        h, line = x.shape[1:]
        b, rows, ow = cols.shape[:3]
        for n in range(b):
            for p in range(rows):
                for q in range(ow):
                    column = cols[n, p, q]
                    for i in range(kh):
                        row = (top + p) * sy + i - ph
                        for j in range(kw):
                            start = (q * sx + j - pw) * c
                            if 0 <= row < h and 0 <= start < line:
                                place = x[n, row, start : start + c]
                                if gathers:
                                    for k in range(c):
                                        column[k, i, j] = place[k]
                                else:
                                    for k in range(c):
                                        place[k] += column[k, i, j]
                            elif gathers:
                                for k in range(c):
                                    column[k, i, j] = 0

    return transfer


_gather = _by_row(gathers=True)
_scatter = _by_row(gathers=False)
_gather_by_filter = _by_filter(gathers=True)
_scatter_by_filter = _by_filter(gathers=False)


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

    def __init__(self, n, w_shape, output, stride, pad, dtype):
        k, c, kh, kw = w_shape
        oh, ow = output
        row = max(c * kh * kw * ow * dtype.itemsize, 1)
        images = max(1, min(n, _BLOCK_BYTES // (row * oh)))
        rows = max(1, min(oh, _BLOCK_BYTES // row))
        self.blocks = [
            _Block(slice(i, min(i + images, n)), slice(top, min(top + rows, oh)))
            for i in range(0, n, images)
            for top in range(0, oh, rows)
        ]
        self._all = numpy.empty((images * rows * ow, c * kh * kw), dtype)
        self._where = (c, kh, kw, *stride, *pad)
        self._w_shape = w_shape
        self._by_filter = n * oh * ow < k
        self._shape = (ow, c, kh, kw) if self._by_filter else (ow, kh, kw * c)

    def filters(self, w):
        """Return filters as a matrix, a row each, in the order of the columns."""
        ordered = numpy.ascontiguousarray(w) if self._by_filter else channels_last(w)
        return ordered.reshape(len(w), -1)

    def as_filters(self, matrix):
        """Return what :meth:`filters` has made a matrix of."""
        k, c, kh, kw = self._w_shape
        if self._by_filter:
            return matrix.reshape(k, c, kh, kw)
        filters = as_channels_first(matrix.reshape(k, kh, kw, c))
        return numpy.ascontiguousarray(filters)

    def room(self, block):
        """Return a matrix for the columns of a block, a row each."""
        n, rows = (part.stop - part.start for part in block)
        return self._all[: n * rows * self._shape[0]]

    def gather(self, x, block):
        """Return the columns of a block of images (n, h, w * c), as a matrix."""
        matrix = self.room(block)
        cols = self._each(matrix, block)
        gather = _gather_by_filter if self._by_filter else _gather
        gather(x[block.images], *self._where, block.rows.start, cols)
        return matrix

    def scatter(self, matrix, block, gx):
        """Add the columns of a block to where they came from."""
        scatter = _scatter_by_filter if self._by_filter else _scatter
        cols = self._each(matrix, block)
        scatter(gx[block.images], *self._where, block.rows.start, cols)

    def _each(self, matrix, block):
        n, rows = (part.stop - part.start for part in block)
        return matrix.reshape(n, rows, *self._shape)


def _lines(x):
    """Return images (n, h, w, c) as an array (n, h, w * c)."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w * c)


def convolve(x, w, bias, stride, pad):
    output = _output(x.shape, w.shape, stride, pad)
    columns = _Columns(len(x), w.shape, output, stride, pad, x.dtype)
    lines, filters = _lines(channels_last(x)), columns.filters(w)
    y = numpy.empty((len(x), *output, len(w)), x.dtype)
    for block in columns.blocks:
        out = y[block].reshape(-1, len(w))
        matmul.forward(columns.gather(lines, block), filters, out=out)
    if bias is not None:
        y += bias
    return as_channels_first(y)


def gradient_of_input(gy, w, x_shape, stride, pad):
    output = _output(x_shape, w.shape, stride, pad)
    columns = _Columns(len(gy), w.shape, output, stride, pad, gy.dtype)
    gy, filters = channels_last(gy), columns.filters(w)
    n, c, height, width = x_shape
    gx = numpy.zeros((n, height, width, c), gy.dtype)
    for block in columns.blocks:
        matrix = columns.room(block)
        rows = gy[block].reshape(-1, len(w))
        matmul.gradient_of_input(rows, filters, out=matrix)
        columns.scatter(matrix, block, _lines(gx))
    return as_channels_first(gx)


def gradient_of_filters(x, gy, w_shape, stride, pad):
    output = _output(x.shape, w_shape, stride, pad)
    columns = _Columns(len(x), w_shape, output, stride, pad, x.dtype)
    lines, gy = _lines(channels_last(x)), channels_last(gy)
    gw = None
    for block in columns.blocks:
        rows = gy[block].reshape(-1, w_shape[0])
        part = matmul.gradient_of_weights(columns.gather(lines, block), rows)
        gw = part if gw is None else numpy.add(gw, part, out=gw)
    return numpy.zeros(w_shape, x.dtype) if gw is None else columns.as_filters(gw)
