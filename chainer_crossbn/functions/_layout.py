"""Which axes of an array are channels."""

import functools
import math


class Layout:
    """Which axes of an array are channels, and its view of shape (n, c, s)."""

    def __init__(self, ndim, channel_ndim, axis):
        if axis is None:
            axis = (0, *range(channel_ndim + 1, ndim))
        self.axis = axis
        self.key_axis = tuple(i for i in range(ndim) if i not in axis)
        first, last = self.key_axis[0], self.key_axis[-1]
        self._split = first, last + 1
        self._channels_last = (*axis, *self.key_axis)
        self._back = tuple(map(self._channels_last.index, range(ndim)))
        self._order = None
        if last - first + 1 != len(self.key_axis):
            self._order = self._channels_last
            self._split = len(axis), ndim

    def flatten(self, x):
        """Return ``x`` as an array of shape (n, c, s), as a view where possible.

        If its channels are the last in memory, n counts the positions, too, and s is 1.
        """
        if self._order:
            x = x.transpose(self._order)
        elif not x.flags.c_contiguous:
            moved = x.transpose(self._channels_last)
            if moved.flags.c_contiguous:
                return self._rows(moved)
        first, last = self._split
        parts = x.shape[:first], x.shape[first:last], x.shape[last:]
        return x.reshape([math.prod(part) for part in parts])

    def flatten_as(self, x, flat):
        """Return ``x`` as an array of the shape that :meth:`flatten` gave another."""
        found = self.flatten(x)
        if found.shape == flat.shape:
            return found
        if flat.shape[2] == 1:
            return self._rows(x.transpose(self._channels_last))
        return x.reshape(flat.shape)

    def _rows(self, moved):
        c = math.prod(moved.shape[len(self.axis) :])
        return moved.reshape(math.prod(moved.shape[: len(self.axis)]), c, 1)

    def restore(self, flat, shape):
        """Return an array of shape (n, c, s) in the original shape."""
        order = self._order
        if not order:
            if len(flat) == math.prod(shape[: self._split[0]]):
                return flat.reshape(shape)
            order = self._channels_last
        moved = flat.reshape([shape[i] for i in order])
        return moved.transpose(self._back)

    def expand(self, v, ndim):
        """Return the channel vector ``v`` so that it broadcasts over the array."""
        return v[
            tuple(slice(None) if i in self.key_axis else None for i in range(ndim))
        ]


@functools.cache
def layout_of(ndim, channel_ndim, axis):
    """Return the layout of arrays of ``ndim`` axes, of which some are channels.

    Args:
        ndim (int): Axes of the arrays.
        channel_ndim (int): Axes of the parameters.
        axis (tuple of int or None): What is averaged over, ascending; by default the
            first axis and all behind the channels.
    """
    return Layout(ndim, channel_ndim, axis)


def check_axis(axis):
    """Return ``axis`` as an ascending tuple, or ``None``; else raise RuntimeError."""
    if axis is None:
        return None
    axis = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(a >= b for a, b in zip(axis, axis[1:])):
        raise RuntimeError("numbers in axis must be sorted in ascending order")
    return axis
