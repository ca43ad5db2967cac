"""Arrays of images whose channels come last in memory, the order that CPUs like.

Kernels that run over channels then vectorize whatever the size of the maps. Outside of
the kernels images have shape (n, c, h, w) always; only the strides tell.
"""

import numpy


def channels_last(x):
    """Return images (n, c, h, w) as a C-contiguous array (n, h, w, c)."""
    return numpy.ascontiguousarray(x.transpose(0, 2, 3, 1))


def as_channels_first(x):
    """Return images (n, h, w, c) as a view of shape (n, c, h, w)."""
    return x.transpose(0, 3, 1, 2)
