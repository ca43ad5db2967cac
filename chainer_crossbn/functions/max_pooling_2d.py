"""Max pooling that is fast on CPUs."""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy
from chainer import function_node
from chainer.utils import type_check
from chainer.utils.conv import get_conv_outsize

from chainer_crossbn import kernels
from chainer_crossbn.functions import _gradients
from chainer_crossbn.functions._native import as_native

_LARGEST = 11  # side of a window whose elements an int8 can number


class _MaxPooling2D(function_node.FunctionNode):
    def __init__(self, windows, sides):
        self._windows = windows
        self._sides = sides

    def check_type_forward(self, in_types):
        type_check.expect(in_types.size() == 1, in_types[0].ndim == 4)

    def forward(self, inputs):
        (x,) = inputs
        self._shape = x.shape
        y, self._places = kernels.pooling.pool(x, *self._windows, self._sides)
        return (y,)

    def backward(self, indexes, grad_outputs):
        node = _Spread(self._places, self._windows, self._shape)
        return _gradients.apply(node, grad_outputs)


class _Spread(function_node.FunctionNode):
    """The gradient of max pooling; its gradient picks what was the maximum."""

    def __init__(self, places, windows, shape):
        self._places = places
        self._windows = windows
        self._shape = shape

    def forward(self, inputs):
        (gy,) = inputs
        return (kernels.pooling.spread(gy, self._places, *self._windows, self._shape),)

    def backward(self, indexes, grad_outputs):
        (ggx,) = grad_outputs
        n, c, oh, ow = self._places.shape
        size, stride, pad = self._windows
        p, q = numpy.ogrid[:oh, :ow]
        rows = p * stride - pad + self._places // size
        columns = q * stride - pad + self._places % size
        i, k = numpy.ogrid[:n, :c]
        return (
            F.get_item(ggx, (i[..., None, None], k[..., None, None], rows, columns)),
        )


def max_pooling_2d(
    x: chainer.Variable | numpy.ndarray,
    size: int,
    stride: int | None = None,
    pad: int = 0,
    cover_all: bool = True,
) -> chainer.Variable:
    """Max pooling, fast on CPUs.

    Windows are cut where the map ends. A NaN is the maximum of its window. What is on a
    GPU, or of another dtype than float32 and float64, goes to
    :func:`chainer.functions.max_pooling_2d`, and so does what has windows of more than
    11x11, or some that lie outside of the map.

    Args:
        x (Variable or array): Shape (N, C, H, W).
        size (int): Side of the windows.
        stride (int or None): From one window to the next; ``size`` by default.
        pad (int): How far the first window reaches over the map.
        cover_all (bool): Whether there is one more window where the map does not end
            with one.

    Returns:
        Variable: Shape (N, C, ceil((H + 2 pad - size) / stride) + 1, ...), or floor
        where not all is covered.
    """
    stride = size if stride is None else stride
    x = as_native(x)
    array = x.array if isinstance(x, chainer.Variable) else x
    assert array is not None
    maps = array.shape[2:]
    sides = tuple(
        get_conv_outsize(side, size, stride, pad, cover_all=cover_all) for side in maps
    )
    inside = pad < size <= _LARGEST and all(
        n > 0 and (n - 1) * stride - pad < side for n, side in zip(sides, maps)
    )
    if not inside or not kernels.are_compiled_for(array):
        return F.max_pooling_2d(x, size, stride, pad, cover_all)
    return _MaxPooling2D((size, stride, pad), sides).apply((x,))[0]
