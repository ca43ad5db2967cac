"""Convolution for CPUs by matrix products, on one cache-sized block at a time.

Any kernel size, stride and pad. As in im2col + GEMM (Chellapilla, Puri and Simard,
2006), but the columns of the whole mini-batch are never there at once.
"""

import numpy

from chainer_crossbn.kernels.compilation import compiled

_BLOCK_BYTES = 1 << 20


@compiled(False)
def _gather(x, kh, kw, sy, sx, ph, pw, oh, ow, cols):
    """cols[c, i, j, b, p, q] = x[b, c, p * sy + i - ph, q * sx + j - pw], or 0."""
    b, c, h, w = x.shape
    for k in range(c):
        for i in range(kh):
            for j in range(kw):
                for n in range(b):
                    for p in range(oh):
                        row = p * sy + i - ph
                        if row < 0 or row >= h:
                            for q in range(ow):
                                cols[k, i, j, n, p, q] = 0
                            continue
                        for q in range(ow):
                            col = q * sx + j - pw
                            if 0 <= col < w:
                                cols[k, i, j, n, p, q] = x[n, k, row, col]
                            else:
                                cols[k, i, j, n, p, q] = 0


@compiled(False)
def _scatter(cols, kh, kw, sy, sx, ph, pw, oh, ow, gx):
    """The transpose of _gather: add each column to where it came from."""
    b, c, h, w = gx.shape
    for n in range(b):
        for k in range(c):
            for p in range(h):
                for q in range(w):
                    gx[n, k, p, q] = 0
            for i in range(kh):
                for j in range(kw):
                    for p in range(oh):
                        row = p * sy + i - ph
                        if row < 0 or row >= h:
                            continue
                        for q in range(ow):
                            col = q * sx + j - pw
                            if 0 <= col < w:
                                gx[n, k, row, col] += cols[k, i, j, n, p, q]


def _geometry(x_shape, w_shape, stride, pad):
    (kh, kw), (sy, sx), (ph, pw) = w_shape[2:], stride, pad
    oh = (x_shape[2] + 2 * ph - kh) // sy + 1
    ow = (x_shape[3] + 2 * pw - kw) // sx + 1
    return (kh, kw, sy, sx, ph, pw, oh, ow)


def _blocks(n, column_bytes):
    step = max(1, min(n, _BLOCK_BYTES // max(column_bytes, 1)))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def _columns(x, geometry):
    kh, kw, *_, oh, ow = geometry
    c = x.shape[1]
    blocks = _blocks(len(x), c * kh * kw * oh * ow * x.itemsize)
    size = blocks[0].stop if blocks else 0
    return blocks, numpy.empty(c * kh * kw * size * oh * ow, x.dtype)


def _view(buffer, c, geometry, b):
    kh, kw, *_, oh, ow = geometry
    cols = buffer[: c * kh * kw * b * oh * ow]
    return cols.reshape(c, kh, kw, b, oh, ow), cols.reshape(c * kh * kw, b * oh * ow)


def convolve(x, w, bias, stride, pad):
    geometry = _geometry(x.shape, w.shape, stride, pad)
    oh, ow = geometry[-2:]
    n, c = x.shape[:2]
    outputs = len(w)
    y = numpy.empty((n, outputs, oh, ow), x.dtype)
    weights = w.reshape(outputs, -1)
    blocks, buffer = _columns(x, geometry)
    for block in blocks:
        part = y[block]
        cols, flat = _view(buffer, c, geometry, len(part))
        _gather(x[block], *geometry, cols)
        if len(part) == 1:
            numpy.matmul(weights, flat, out=part.reshape(outputs, oh * ow))
        else:
            product = (weights @ flat).reshape(outputs, len(part), oh, ow)
            part[...] = product.transpose(1, 0, 2, 3)
    if bias is not None:
        y += bias[:, None, None]
    return y


def gradient_of_input(gy, w, x_shape, stride, pad):
    geometry = _geometry(x_shape, w.shape, stride, pad)
    n, c = x_shape[:2]
    outputs = len(w)
    gx = numpy.empty(x_shape, gy.dtype)
    weights = w.reshape(outputs, -1).T
    blocks, buffer = _columns(gx, geometry)
    for block in blocks:
        part = gx[block]
        cols, flat = _view(buffer, c, geometry, len(part))
        numpy.matmul(weights, _channels_first(gy[block]), out=flat)
        _scatter(cols, *geometry, part)
    return gx


def gradient_of_filters(x, gy, w_shape, stride, pad):
    geometry = _geometry(x.shape, w_shape, stride, pad)
    c, outputs = x.shape[1], w_shape[0]
    gw = numpy.zeros((outputs, numpy.prod(w_shape[1:])), x.dtype)
    blocks, buffer = _columns(x, geometry)
    for block in blocks:
        cols, flat = _view(buffer, c, geometry, len(x[block]))
        _gather(x[block], *geometry, cols)
        gw += _channels_first(gy[block]) @ flat.T
    return gw.reshape(w_shape)


def _channels_first(gy):
    """Return (b, k, p, q) as (k, b * p * q)."""
    return gy.transpose(1, 0, 2, 3).reshape(gy.shape[1], -1)
