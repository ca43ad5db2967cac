"""Max pooling of windows that do not overlap, for CPUs: one pass each way."""

import numpy

from chainer_crossbn.kernels.compilation import compiled


@compiled(False)
def _pool(x, size, y, places):
    n, c, oh, ow = y.shape
    h, w = x.shape[2:]
    for i in range(n):
        for k in range(c):
            for p in range(oh):
                for q in range(ow):
                    best = x[i, k, p * size, q * size]
                    place = 0
                    for a in range(min(size, h - p * size)):
                        for b in range(min(size, w - q * size)):
                            v = x[i, k, p * size + a, q * size + b]
                            # The first NaN wins, and none is above it.
                            if v > best or (v != v and best == best):
                                best = v
                                place = a * size + b
                    y[i, k, p, q] = best
                    places[i, k, p, q] = place


@compiled(False)
def _spread(gy, places, size, gx):
    n, c, h, w = gx.shape
    oh, ow = gy.shape[2:]
    for i in range(n):
        for k in range(c):
            for p in range(oh):
                for a in range(min(size, h - p * size)):
                    for q in range(ow):
                        place = places[i, k, p, q]
                        for b in range(min(size, w - q * size)):
                            row, col = p * size + a, q * size + b
                            here = place == a * size + b
                            gx[i, k, row, col] = gy[i, k, p, q] if here else 0


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
    shape = (n, c, -(-h // size), -(-w // size))
    y, places = numpy.empty(shape, x.dtype), numpy.empty(shape, numpy.int8)
    _pool(numpy.ascontiguousarray(x), size, y, places)
    return y, places


def spread(gy, places, size, shape):
    """Return the gradient of :func:`pool`'s input, of a shape."""
    gx = numpy.empty(shape, gy.dtype)
    _spread(numpy.ascontiguousarray(gy), places, size, gx)
    return gx
