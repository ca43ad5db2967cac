"""Per-device arithmetic of batch normalization.

Each module here holds the same four functions on arrays of shape ``(n, c, s)``: n
samples, c channels and s positions, whatever the layout was before. Statistics are
float64 arrays of shape ``(c,)``.
"""

import importlib.util

import numpy

from chainer_crossbn.kernels import arrays

if importlib.util.find_spec("numba"):
    from chainer_crossbn.kernels import cpu
else:
    cpu = arrays


def of(x):
    """Return the module of kernels for the array ``x``."""
    return cpu if isinstance(x, numpy.ndarray) else arrays
