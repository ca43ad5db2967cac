"""What ranks send each other and get back, on GPUs: tags in front of float64 numbers.

The tags are a number and its square; where the sums over the ranks show that not all
had the same number, it is written to a flag on the device, unless that is set.
"""

import math
from pathlib import Path

import numpy
from chainer import backend

from chainer_crossbn.kernels.cuda import launching

SOURCE = Path(__file__).with_name("packing.cu")


def pack_vector(number, vector):
    """Return the tags of a number, and a float64 vector behind them.

    Args:
        number (int): Tells the layer.
        vector: float64 array of shape (m,).

    Returns:
        float64 array of shape (2 + m,).
    """
    packed = _like(vector, 2 + vector.size)
    vector = backend.get_array_module(vector).ascontiguousarray(vector)
    _launch("pack_vector", vector.size, float(number), vector, packed)
    return packed


def unpack_vector(received, n_ranks, number, flag):
    """Return the sum of the ranks' vectors.

    Args:
        received: float64 array of shape (2 + m,), the sum of what
            :func:`pack_vector` returned on all ranks.
        n_ranks (int): How many these are.
        number (int): That of this rank.
        flag: int64 array of shape (1,).

    Returns:
        float64 array of shape (m,).
    """
    vector = _like(received, received.size - 2)
    expected = float(n_ranks * number), float(n_ranks * number**2)
    flagged = numpy.int64(number), flag
    _launch("unpack_vector", vector.size, received, *expected, *flagged, vector)
    return vector


def pack_moments(number, count, mean, m2):
    """Return tags, count, ``count * mean`` and ``m2 + count * mean**2``.

    Args:
        number (int): Tells the layer.
        count (int): Elements of a channel.
        mean: float64 array of shape (c,).
        m2: float64 array of shape (c,).

    Returns:
        float64 array of shape (3 + 2 * c,).
    """
    packed = _like(mean, 3 + 2 * mean.size)
    _launch("pack_moments", mean.size, float(number), float(count), mean, m2, packed)
    return packed


def unpack_moments(received, n_ranks, number, flag):
    """Return count, mean and M2 of the ranks' mini-batches together.

    Args:
        received: float64 array of shape (3 + 2 * c,), the sum of what
            :func:`pack_moments` returned on all ranks.
        n_ranks (int): How many these are.
        number (int): That of this rank.
        flag: int64 array of shape (1,).

    Returns:
        tuple: float64 arrays of shapes (), (c,) and (c,).
    """
    c = (received.size - 3) // 2
    merged = _like(received, 1 + 2 * c)
    expected = float(n_ranks * number), float(n_ranks * number**2)
    flagged = numpy.int64(number), flag
    _launch("unpack_moments", c, received, *expected, *flagged, merged)
    return merged[:1].reshape(()), merged[1 : 1 + c], merged[1 + c :]


def _like(array, size):
    return backend.get_array_module(array).empty(size)


def _launch(name, size, *arguments):
    blocks = max(math.ceil(size / launching.THREADS), 1)
    launching.launcher(SOURCE)(name, (blocks,), numpy.int64(size), *arguments)
