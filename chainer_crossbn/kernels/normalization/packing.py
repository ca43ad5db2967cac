"""What ranks send and receive on GPUs: tags in front of float64 numbers.

The tags are a number and its square. Where their sums over the ranks show that not all
ranks had the same number, it is written to a flag on the device, unless that is set.
The named tuples have the parameters of the kernels in :data:`SOURCE`, in their order.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy
from chainer import backend
from chainer.backends import cuda

from chainer_crossbn.kernels.cuda import launching

SOURCE = Path(__file__).with_name("packing.cu")


class _PackVector(NamedTuple):
    size: numpy.int64
    number: float
    vector: cuda.ndarray
    packed: cuda.ndarray


class _PackMoments(NamedTuple):
    size: numpy.int64
    number: float
    n: float
    mean: cuda.ndarray
    m2: cuda.ndarray
    packed: cuda.ndarray


class _Unpack(NamedTuple):
    """Of both vectors and moments."""

    size: numpy.int64
    received: cuda.ndarray
    expected_sum: float
    expected_sum_of_squares: float
    number: numpy.int64
    flag: cuda.ndarray
    result: cuda.ndarray


def pack_vector(number, vector):
    """Return the tags of a number, followed by a float64 vector.

    Args:
        number (int): Identifies the layer.
        vector: float64 array of shape (m,).

    Returns:
        float64 array of shape (2 + m,).
    """
    packed = _like(vector, 2 + vector.size)
    vector = backend.get_array_module(vector).ascontiguousarray(vector)
    arguments = _PackVector(
        size=numpy.int64(vector.size),
        number=float(number),
        vector=vector,
        packed=packed,
    )
    _launch("pack_vector", arguments)
    return packed


def unpack_vector(received, n_ranks, number, flag):
    """Return the sum of the ranks' vectors.

    Args:
        received: float64 array of shape (2 + m,), the sum of what
            :func:`pack_vector` returned on all ranks.
        n_ranks (int): Number of ranks.
        number (int): The number of this rank.
        flag: int64 array of shape (1,).

    Returns:
        float64 array of shape (m,).
    """
    size = received.size - 2
    vector = _like(received, size)
    _unpack("unpack_vector", size, received, n_ranks, number, flag, vector)
    return vector


def pack_moments(number, count, mean, m2):
    """Return tags, count, ``count * mean`` and ``m2 + count * mean**2``.

    Args:
        number (int): Identifies the layer.
        count (int): Elements of a channel.
        mean: float64 array of shape (c,).
        m2: float64 array of shape (c,).

    Returns:
        float64 array of shape (3 + 2 * c,).
    """
    packed = _like(mean, 3 + 2 * mean.size)
    arguments = _PackMoments(
        size=numpy.int64(mean.size),
        number=float(number),
        n=float(count),
        mean=mean,
        m2=m2,
        packed=packed,
    )
    _launch("pack_moments", arguments)
    return packed


def unpack_moments(received, n_ranks, number, flag):
    """Return count, mean and M2 of the ranks' mini-batches together.

    Args:
        received: float64 array of shape (3 + 2 * c,), the sum of what
            :func:`pack_moments` returned on all ranks.
        n_ranks (int): Number of ranks.
        number (int): The number of this rank.
        flag: int64 array of shape (1,).

    Returns:
        tuple: float64 arrays of shapes (), (c,) and (c,).
    """
    c = (received.size - 3) // 2
    merged = _like(received, 1 + 2 * c)
    _unpack("unpack_moments", c, received, n_ranks, number, flag, merged)
    return merged[:1].reshape(()), merged[1 : 1 + c], merged[1 + c :]


def _like(array, size):
    return backend.get_array_module(array).empty(size)


def _unpack(name, size, received, n_ranks, number, flag, result):
    arguments = _Unpack(
        size=numpy.int64(size),
        received=received,
        expected_sum=float(n_ranks * number),
        expected_sum_of_squares=float(n_ranks * number**2),
        number=numpy.int64(number),
        flag=flag,
        result=result,
    )
    _launch(name, arguments)


def _launch(name, arguments):
    blocks = max(math.ceil(int(arguments.size) / launching.THREADS), 1)
    launching.launcher(SOURCE)(name, (blocks,), arguments)
