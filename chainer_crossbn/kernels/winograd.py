"""Winograd's F(4x4, 3x3) convolution for CPUs: 3x3 filters, stride 1, pad 1.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2015): each tile of
4x4 outputs is computed from 6x6 inputs by 36 products a channel pair in place of 144.
The products of all tiles are 36 matrix products, which BLAS makes; the transforms
around them are compiled by Numba. They run over images whose channels come last, so
that they vectorize at every size of the maps; a chunk of images that fits into the
cache is packed so at a time.
"""

import numpy

from chainer_crossbn.kernels.compilation import REORDERED, compiled

_BLOCK = 64  # channels that are transformed together, in the first-level cache
_CHUNK_BYTES = 3 << 20  # of transformed tiles, in the second- or third-level cache


@compiled(REORDERED)
def _pack(x, packed):
    """Copy (b, c, h, w) with the channels last, inside the padding."""
    b, c, h, w = x.shape
    for i in range(b):
        for p in range(h):
            for k0 in range(0, c, 16):
                k1 = min(k0 + 16, c)
                for q in range(w):
                    for k in range(k0, k1):
                        packed[i, p + 1, q + 1, k] = x[i, k, p, q]


@compiled(REORDERED)
def _transform_inputs(packed, th, tw, v):
    """v = B' d B for each 6x6 tile d of ``packed``; v has shape (36, tiles, c)."""
    b, c = packed.shape[0], packed.shape[3]
    two, four, five = (packed.dtype.type(2), packed.dtype.type(4), packed.dtype.type(5))
    rows = numpy.empty((6, 6, _BLOCK), packed.dtype)
    for i in range(b):
        for p in range(th):
            for q in range(tw):
                t = (i * th + p) * tw + q
                for k0 in range(0, c, _BLOCK):
                    n = min(_BLOCK, c - k0)
                    d = packed[i, 4 * p : 4 * p + 6, 4 * q : 4 * q + 6, k0 : k0 + n]
                    for j in range(6):
                        for k in range(n):
                            d0, d1, d2 = d[0, j, k], d[1, j, k], d[2, j, k]
                            d3, d4, d5 = d[3, j, k], d[4, j, k], d[5, j, k]
                            e, f = d4 - four * d2, d3 - four * d1
                            g, h = d4 - d2, two * (d3 - d1)
                            rows[0, j, k] = four * d0 - five * d2 + d4
                            rows[1, j, k] = e + f
                            rows[2, j, k] = e - f
                            rows[3, j, k] = g + h
                            rows[4, j, k] = g - h
                            rows[5, j, k] = four * d1 - five * d3 + d5
                    for j in range(6):
                        for k in range(n):
                            d0, d1, d2 = rows[j, 0, k], rows[j, 1, k], rows[j, 2, k]
                            d3, d4, d5 = rows[j, 3, k], rows[j, 4, k], rows[j, 5, k]
                            e, f = d4 - four * d2, d3 - four * d1
                            g, h = d4 - d2, two * (d3 - d1)
                            v[6 * j, t, k0 + k] = four * d0 - five * d2 + d4
                            v[6 * j + 1, t, k0 + k] = e + f
                            v[6 * j + 2, t, k0 + k] = e - f
                            v[6 * j + 3, t, k0 + k] = g + h
                            v[6 * j + 4, t, k0 + k] = g - h
                            v[6 * j + 5, t, k0 + k] = four * d1 - five * d3 + d5


@compiled(REORDERED)
def _transform_filters(w, u):
    """u = G g G' for each 3x3 filter g; u has shape (36, inputs, outputs)."""
    outputs, inputs = w.shape[:2]
    quarter, sixth = w.dtype.type(1 / 4), w.dtype.type(1 / 6)
    twelfth, twenty_fourth = w.dtype.type(1 / 12), w.dtype.type(1 / 24)
    g = numpy.empty((3, 3, _BLOCK), w.dtype)
    rows = numpy.empty((6, 3, _BLOCK), w.dtype)
    for k0 in range(0, outputs, _BLOCK):
        n = min(_BLOCK, outputs - k0)
        for c in range(inputs):
            for k in range(n):
                for i in range(3):
                    for j in range(3):
                        g[i, j, k] = w[k0 + k, c, i, j]
            for j in range(3):
                for k in range(n):
                    g0, g1, g2 = g[0, j, k], g[1, j, k], g[2, j, k]
                    e, f = -sixth * (g0 + g2), sixth * g1
                    d, h = twenty_fourth * g0 + sixth * g2, twelfth * g1
                    rows[0, j, k] = quarter * g0
                    rows[1, j, k] = e - f
                    rows[2, j, k] = e + f
                    rows[3, j, k] = d + h
                    rows[4, j, k] = d - h
                    rows[5, j, k] = g2
            for i in range(6):
                for k in range(n):
                    g0, g1, g2 = rows[i, 0, k], rows[i, 1, k], rows[i, 2, k]
                    e, f = -sixth * (g0 + g2), sixth * g1
                    d, h = twenty_fourth * g0 + sixth * g2, twelfth * g1
                    u[6 * i, c, k0 + k] = quarter * g0
                    u[6 * i + 1, c, k0 + k] = e - f
                    u[6 * i + 2, c, k0 + k] = e + f
                    u[6 * i + 3, c, k0 + k] = d + h
                    u[6 * i + 4, c, k0 + k] = d - h
                    u[6 * i + 5, c, k0 + k] = g2


@compiled(REORDERED)
def _transform_outputs(m, th, tw, bias, y):
    """y = A' m A + bias for each tile of m, of shape (36, tiles, outputs)."""
    b, outputs, height, width = y.shape
    two, four, eight = y.dtype.type(2), y.dtype.type(4), y.dtype.type(8)
    cols = numpy.empty((4, 6, _BLOCK), y.dtype)
    lines = numpy.empty((4, 4 * tw, outputs), y.dtype)
    for i in range(b):
        for p in range(th):
            for q in range(tw):
                t = (i * th + p) * tw + q
                for k0 in range(0, outputs, _BLOCK):
                    n = min(_BLOCK, outputs - k0)
                    for j in range(6):
                        for k in range(n):
                            m0, m1 = m[j, t, k0 + k], m[6 + j, t, k0 + k]
                            m2, m3 = m[12 + j, t, k0 + k], m[18 + j, t, k0 + k]
                            m4, m5 = m[24 + j, t, k0 + k], m[30 + j, t, k0 + k]
                            e, f, g, h = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                            cols[0, j, k] = m0 + e + g
                            cols[1, j, k] = f + two * h
                            cols[2, j, k] = e + four * g
                            cols[3, j, k] = f + eight * h + m5
                    for j in range(4):
                        for k in range(n):
                            m0, m1, m2 = cols[j, 0, k], cols[j, 1, k], cols[j, 2, k]
                            m3, m4, m5 = cols[j, 3, k], cols[j, 4, k], cols[j, 5, k]
                            e, f, g, h = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                            a = bias[k0 + k]
                            lines[j, 4 * q, k0 + k] = m0 + e + g + a
                            lines[j, 4 * q + 1, k0 + k] = f + two * h + a
                            lines[j, 4 * q + 2, k0 + k] = e + four * g + a
                            lines[j, 4 * q + 3, k0 + k] = f + eight * h + m5 + a
            for j in range(min(4, height - 4 * p)):
                for k0 in range(0, outputs, 16):
                    for k in range(k0, min(k0 + 16, outputs)):
                        for q in range(width):
                            y[i, k, 4 * p + j, q] = lines[j, q, k]


@compiled(REORDERED)
def _transform_gradients(packed, th, tw, z):
    """z = G g G' for each 4x4 tile g of gy, as F(3x3, 4x4) has it; (36, tiles, c)."""
    b, c = packed.shape[0], packed.shape[3]
    two, four = packed.dtype.type(2), packed.dtype.type(4)
    quarter, sixth = packed.dtype.type(1 / 4), packed.dtype.type(1 / 6)
    twenty_fourth = packed.dtype.type(1 / 24)
    rows = numpy.empty((6, 4, _BLOCK), packed.dtype)
    for i in range(b):
        for p in range(th):
            for q in range(tw):
                t = (i * th + p) * tw + q
                for k0 in range(0, c, _BLOCK):
                    n = min(_BLOCK, c - k0)
                    d = packed[
                        i, 4 * p + 1 : 4 * p + 5, 4 * q + 1 : 4 * q + 5, k0 : k0 + n
                    ]
                    for j in range(4):
                        for k in range(n):
                            g0, g1 = d[0, j, k], d[1, j, k]
                            g2, g3 = d[2, j, k], d[3, j, k]
                            e, f = -sixth * (g0 + g2), sixth * (g1 + g3)
                            h = twenty_fourth * (g0 + four * g2)
                            m = twenty_fourth * two * (g1 + four * g3)
                            rows[0, j, k] = quarter * g0
                            rows[1, j, k] = e - f
                            rows[2, j, k] = e + f
                            rows[3, j, k] = h + m
                            rows[4, j, k] = h - m
                            rows[5, j, k] = g3
                    for j in range(6):
                        for k in range(n):
                            g0, g1 = rows[j, 0, k], rows[j, 1, k]
                            g2, g3 = rows[j, 2, k], rows[j, 3, k]
                            e, f = -sixth * (g0 + g2), sixth * (g1 + g3)
                            h = twenty_fourth * (g0 + four * g2)
                            m = twenty_fourth * two * (g1 + four * g3)
                            z[6 * j, t, k0 + k] = quarter * g0
                            z[6 * j + 1, t, k0 + k] = e - f
                            z[6 * j + 2, t, k0 + k] = e + f
                            z[6 * j + 3, t, k0 + k] = h + m
                            z[6 * j + 4, t, k0 + k] = h - m
                            z[6 * j + 5, t, k0 + k] = g3


@compiled(REORDERED)
def _gather_filters(s, gw):
    """gw = A' s A for each pair of s, (36, inputs, outputs), as F(3x3, 4x4) has it."""
    inputs, outputs = s.shape[1:]
    two, four = s.dtype.type(2), s.dtype.type(4)
    cols = numpy.empty((3, 6, _BLOCK), s.dtype)
    out = numpy.empty((3, 3, _BLOCK), s.dtype)
    for k0 in range(0, outputs, _BLOCK):
        n = min(_BLOCK, outputs - k0)
        for c in range(inputs):
            for j in range(6):
                for k in range(n):
                    s0, s1 = s[j, c, k0 + k], s[6 + j, c, k0 + k]
                    s2, s3 = s[12 + j, c, k0 + k], s[18 + j, c, k0 + k]
                    s4, s5 = s[24 + j, c, k0 + k], s[30 + j, c, k0 + k]
                    e, f, g, h = s1 + s2, s1 - s2, s3 + s4, s3 - s4
                    cols[0, j, k] = s0 + e + g
                    cols[1, j, k] = f + two * h
                    cols[2, j, k] = e + four * g + s5
            for i in range(3):
                for k in range(n):
                    s0, s1, s2 = cols[i, 0, k], cols[i, 1, k], cols[i, 2, k]
                    s3, s4, s5 = cols[i, 3, k], cols[i, 4, k], cols[i, 5, k]
                    e, f, g, h = s1 + s2, s1 - s2, s3 + s4, s3 - s4
                    out[i, 0, k] = s0 + e + g
                    out[i, 1, k] = f + two * h
                    out[i, 2, k] = e + four * g + s5
            for k in range(n):
                for i in range(3):
                    for j in range(3):
                        gw[k0 + k, c, i, j] = out[i, j, k]


def _tiles(shape):
    return -(-shape[2] // 4), -(-shape[3] // 4)


def _packed(x, th, tw):
    # What _pack leaves is the padding.
    return numpy.zeros((len(x), 4 * th + 2, 4 * tw + 2, x.shape[1]), x.dtype)


def _chunks(n, tiles, channels, itemsize):
    step = max(1, _CHUNK_BYTES // (36 * tiles * channels * itemsize))
    step = -(-n // -(-n // step)) if n else 1
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def pays(x_shape, w_shape):
    """Whether the transforms cost less than the products that they save.

    The transform of the filters is once a call, so there must be tiles enough, and the
    more the less of the filters the cache holds.
    """
    th, tw = _tiles(x_shape)
    outputs, inputs = w_shape[:2]
    return inputs >= 16 and x_shape[0] * th * tw >= 16 + outputs * inputs / 4096


def convolve(x, w, bias=None):
    """Return the convolution of (n, c, h, w) with (k, c, 3, 3), and add a bias."""
    n, c, height, width = x.shape
    outputs = len(w)
    th, tw = _tiles(x.shape)
    if bias is None:
        bias = numpy.zeros(outputs, x.dtype)
    u = numpy.empty((36, c, outputs), x.dtype)
    _transform_filters(w, u)
    y = numpy.empty((n, outputs, height, width), x.dtype)
    chunks = _chunks(n, th * tw, c + outputs, x.itemsize)
    if not chunks:
        return y
    size = chunks[0].stop
    packed = _packed(x[:size], th, tw)
    v = numpy.empty((36, size * th * tw, c), x.dtype)
    m = numpy.empty((36, size * th * tw, outputs), x.dtype)
    for chunk in chunks:
        part = x[chunk]
        t = len(part) * th * tw
        _pack(part, packed)
        _transform_inputs(packed[: len(part)], th, tw, v)
        numpy.matmul(v[:, :t], u, out=m[:, :t])
        _transform_outputs(m, th, tw, bias, y[chunk])
    return y


def gradient_of_input(gy, w):
    """Return the gradient of the input: convolution with turned, swapped filters."""
    return convolve(gy, w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))


def gradient_of_filters(x, gy):
    n, c = x.shape[:2]
    outputs = gy.shape[1]
    th, tw = _tiles(x.shape)
    gw = numpy.empty((outputs, c, 3, 3), x.dtype)
    chunks = _chunks(n, th * tw, c + outputs, x.itemsize)
    total = None
    if not chunks:
        gw[...] = 0
        return gw
    size = chunks[0].stop
    packed_x, packed_gy = _packed(x[:size], th, tw), _packed(gy[:size], th, tw)
    v = numpy.empty((36, size * th * tw, c), x.dtype)
    z = numpy.empty((36, size * th * tw, outputs), x.dtype)
    for chunk in chunks:
        part = x[chunk]
        t = len(part) * th * tw
        _pack(part, packed_x)
        _pack(gy[chunk], packed_gy)
        _transform_inputs(packed_x[: len(part)], th, tw, v)
        _transform_gradients(packed_gy[: len(part)], th, tw, z)
        s = numpy.matmul(v[:, :t].transpose(0, 2, 1), z[:, :t])
        total = s if total is None else numpy.add(total, s, out=total)
    _gather_filters(total, gw)
    return gw
