"""Max pooling that is fast on CPUs."""

import chainer
import chainer.functions as F
import numpy
from chainer import function_node
from chainer.utils import type_check

from chainer_crossbn import gradients, kernels


class _MaxPooling2D(function_node.FunctionNode):
    def __init__(self, size):
        self._size = size

    def check_type_forward(self, in_types):
        type_check.expect(in_types.size() == 1, in_types[0].ndim == 4)

    def forward(self, inputs):
        (x,) = inputs
        self._shape = x.shape
        y, self._places = kernels.pooling.pool(x, self._size)
        return (y,)

    def backward(self, indexes, grad_outputs):
        node = _Spread(self._places, self._size, self._shape)
        return gradients.apply(node, grad_outputs)


class _Spread(function_node.FunctionNode):
    """The gradient of max pooling; its gradient picks what was the maximum."""

    def __init__(self, places, size, shape):
        self._places = places
        self._size = size
        self._shape = shape

    def forward(self, inputs):
        (gy,) = inputs
        return (kernels.pooling.spread(gy, self._places, self._size, self._shape),)

    def backward(self, indexes, grad_outputs):
        (ggx,) = grad_outputs
        n, c, oh, ow = self._places.shape
        p, q = numpy.ogrid[:oh, :ow]
        rows = p * self._size + self._places // self._size
        columns = q * self._size + self._places % self._size
        i, k = numpy.ogrid[:n, :c]
        return (
            F.get_item(ggx, (i[..., None, None], k[..., None, None], rows, columns)),
        )


def max_pooling_2d(x, size):
    """Max pooling over windows that do not overlap, fast on CPUs.

    Windows at the end are cut where the map is. A NaN is the maximum of its window.
    What is on a GPU, or of another dtype than float32 and float64, goes to
    :func:`chainer.functions.max_pooling_2d`.

    Args:
        x (Variable or array): Shape (N, C, H, W).
        size (int): Side of the windows, and their stride; at most 11.

    Returns:
        Variable: Shape (N, C, ceil(H / size), ceil(W / size)).
    """
    array = x.array if isinstance(x, chainer.Variable) else x
    if not kernels.are_compiled_for(array):
        return F.max_pooling_2d(x, size)
    return _MaxPooling2D(size).apply((x,))[0]
