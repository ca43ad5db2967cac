"""Max pooling of windows that do not overlap, for CPUs: one pass each way."""

import numpy

from chainer_crossbn.kernels.compilation import compiled
from chainer_crossbn.kernels.memory import as_channels_first, channels_last


@compiled(False)
def _pool(x, size, y, places):
    n, oh, ow, c = y.shape
    h, w = x.shape[1:3]
    for i in range(n):
        for p in range(oh):
            for q in range(ow):
                best, place = y[i, p, q], places[i, p, q]
                best[:] = x[i, p * size, q * size]
                place[:] = 0
                for a in range(min(size, h - p * size)):
                    for b in range(min(size, w - q * size)):
                        here = numpy.int8(a * size + b)
                        row = x[i, p * size + a, q * size + b]
                        for k in range(c):
                            # The first NaN wins, and none is above it.
                            above = (row[k] > best[k]) | (
                                (row[k] != row[k]) & (best[k] == best[k])
                            )
                            best[k] = row[k] if above else best[k]
                            place[k] = here if above else place[k]


@compiled(False)
def _spread(gy, places, size, gx):
    n, h, w, c = gx.shape
    zero = gx.dtype.type(0)
    for i in range(n):
        for p in range(h):
            for q in range(w):
                here = numpy.int8(p % size * size + q % size)
                row, place = gx[i, p, q], places[i, p // size, q // size]
                g = gy[i, p // size, q // size]
                for k in range(c):
                    row[k] = g[k] if place[k] == here else zero


def pool(x, size):
    """Return the maxima of windows, and where in each its maximum is.

    Args:
        x: Array of shape (n, c, h, w), float32 or float64.
        size (int): Side of the windows, at most 11; those at the end may be smaller.

    Returns:
        tuple: an array of shape (n, c, ceil(h / size), ceil(w / size)), and an int8
        array of the same shape that numbers the elements of a window row by row.
    """
    n, c, h, w = x.shape
    shape = (n, -(-h // size), -(-w // size), c)
    y, places = numpy.empty(shape, x.dtype), numpy.empty(shape, numpy.int8)
    _pool(channels_last(x), size, y, places)
    return as_channels_first(y), as_channels_first(places)


def spread(gy, places, size, shape):
    """Return the gradient of :func:`pool`'s input, of a shape."""
    n, c, h, w = shape
    gx = numpy.empty((n, h, w, c), gy.dtype)
    _spread(channels_last(gy), channels_last(places), size, gx)
    return as_channels_first(gx)
