"""Which axes of an array are channels."""

import math

import numpy


class Layout:
    """Which axes of an array are channels, and its view of shape (n, c, s)."""

    def __init__(self, ndim, channel_ndim, axis):
        if axis is None:
            axis = (0, *range(channel_ndim + 1, ndim))
        self.axis = axis
        self.key_axis = tuple(i for i in range(ndim) if i not in axis)
        first, last = self.key_axis[0], self.key_axis[-1]
        self._split = first, last + 1
        self._order = None
        if last - first + 1 != len(self.key_axis):
            self._order = (*axis, *self.key_axis)
            self._split = len(axis), ndim

    def flatten(self, x):
        """Return ``x`` as an array of shape (n, c, s), as a view where possible."""
        if self._order:
            x = x.transpose(self._order)
        first, last = self._split
        parts = x.shape[:first], x.shape[first:last], x.shape[last:]
        return x.reshape([math.prod(part) for part in parts])

    def restore(self, flat, shape):
        """Return an array of shape (n, c, s) in the original shape."""
        if not self._order:
            return flat.reshape(shape)
        moved = flat.reshape([shape[i] for i in self._order])
        return moved.transpose(numpy.argsort(self._order))

    def expand(self, v, ndim):
        """Return the channel vector ``v`` so that it broadcasts over the array."""
        return v[
            tuple(slice(None) if i in self.key_axis else None for i in range(ndim))
        ]


def check_axis(axis):
    """Return ``axis`` as an ascending tuple, or ``None``; else raise RuntimeError."""
    if axis is None:
        return None
    axis = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(a >= b for a, b in zip(axis, axis[1:])):
        raise RuntimeError("numbers in axis must be sorted in ascending order")
    return axis
