"""How arrays lie in the memory of the host.

CPUs like images whose channels come last in memory: kernels that run over channels then
vectorize whatever the size of the maps. Outside of the kernels images have shape (n, c,
h, w) always; only the strides tell.
"""

import ctypes
import os

import numpy

# Parameters of the GNU C library's mallopt.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLDS = 1 << 30, 32 << 20  # the first that is accepted


def channels_last(x):
    """Return images (n, c, h, w) as a C-contiguous array (n, h, w, c)."""
    return numpy.ascontiguousarray(x.transpose(0, 2, 3, 1))


def as_channels_first(x):
    """Return images (n, h, w, c) as a view of shape (n, c, h, w)."""
    return x.transpose(0, 3, 1, 2)


def keep_freed_memory():
    """Let the process keep the memory that it frees, for the next step to use.

    Else large arrays go back to the system, which fills pages with zeros whenever they
    are had anew: a tenth of a step of VGG16. Does nothing but with the GNU C library.
    """
    allocator = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(allocator, "mallopt"):
        return
    # Before version 2.35 it rejects, with 0, more than half of a heap. A threshold for
    # trimming alone would fix the other at its default of 128 KiB.
    if any(allocator.mallopt(_M_MMAP_THRESHOLD, n) for n in _MMAP_THRESHOLDS):
        allocator.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
