"""Max pooling for CPUs: one pass each way."""

import numpy

from chainer_crossbn.kernels.cpu.compilation import compiled
from chainer_crossbn.kernels.cpu.memory import as_channels_first, channels_last


@compiled(False)
def _pool(x, size, stride, pad, y, places):
    n, oh, ow, c = y.shape
    h, w = x.shape[1:3]
    for i in range(n):
        for p in range(oh):
            top = p * stride - pad
            for q in range(ow):
                left = q * stride - pad
                best, place = y[i, p, q], places[i, p, q]
                a, b = max(0, -top), max(0, -left)
                best[:] = x[i, top + a, left + b]
                place[:] = a * size + b
                for a in range(max(0, -top), min(size, h - top)):
                    for b in range(max(0, -left), min(size, w - left)):
                        here = numpy.int8(a * size + b)
                        row = x[i, top + a, left + b]
                        for k in range(c):
                            # The first NaN wins, and none is above it.
                            above = (row[k] > best[k]) | (
                                (row[k] != row[k]) & (best[k] == best[k])
                            )
                            best[k] = row[k] if above else best[k]
                            place[k] = here if above else place[k]


@compiled(False)
def _spread(gy, places, size, stride, pad, gx):
    n, h, w, c = gx.shape
    oh, ow = gy.shape[1:3]
    zero = gx.dtype.type(0)
    for i in range(n):
        for r in range(h):
            # The windows that hold row r: r - size < top <= r.
            p_first = max(0, (r + pad - size) // stride + 1)
            p_end = min(oh, (r + pad) // stride + 1)
            for s in range(w):
                q_first = max(0, (s + pad - size) // stride + 1)
                q_end = min(ow, (s + pad) // stride + 1)
                row = gx[i, r, s]
                fresh = True
                for p in range(p_first, p_end):
                    for q in range(q_first, q_end):
                        here = numpy.int8(
                            (r + pad - p * stride) * size + s + pad - q * stride
                        )
                        place, g = places[i, p, q], gy[i, p, q]
                        if fresh:
                            for k in range(c):
                                row[k] = g[k] if place[k] == here else zero
                        else:
                            for k in range(c):
                                row[k] += g[k] if place[k] == here else zero
                        fresh = False
                if fresh:
                    row[:] = zero


def pool(x, size, stride, pad, sides):
    """Return the maxima of windows, and where in each its maximum is.

    Args:
        x: Array of shape (n, c, h, w), float32 or float64.
        size (int): Side of the windows, at most 11; they are cut where the map ends.
        stride (int): From one window to the next.
        pad (int): How far the first window reaches over the map, less than ``size``.
        sides (tuple of int): How many windows there are in each direction, of which the
            last begins inside of the map.

    Returns:
        tuple: an array of shape (n, c, *sides), and an int8 array of the same shape
        that numbers the elements of a window row by row.
    """
    n, c = x.shape[:2]
    shape = (n, *sides, c)
    y, places = numpy.empty(shape, x.dtype), numpy.empty(shape, numpy.int8)
    _pool(channels_last(x), size, stride, pad, y, places)
    return as_channels_first(y), as_channels_first(places)


def spread(gy, places, size, stride, pad, shape):
    """Return the gradient of :func:`pool`'s input, of a shape."""
    n, c, h, w = shape
    gx = numpy.empty((n, h, w, c), gy.dtype)
    _spread(channels_last(gy), channels_last(places), size, stride, pad, gx)
    return as_channels_first(gx)
