"""Arrays as compiled kernels take them."""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy
from chainer import function_node


class _AsNative(function_node.FunctionNode):
    def forward(self, inputs):
        (x,) = inputs
        self._dtype = x.dtype
        return (numpy.require(x, x.dtype.newbyteorder("="), ["ALIGNED"]),)

    def backward(self, indexes, grad_outputs):
        return (F.cast(grad_outputs[0], self._dtype),)


def as_native(
    x: chainer.Variable | numpy.ndarray,
) -> chainer.Variable | numpy.ndarray:
    """Return an array of the machine's byte order and aligned in memory.

    Args:
        x (Variable or array): Any array, which is returned as it is where it fits, or
            is on a GPU.
    """
    array = x.array if isinstance(x, chainer.Variable) else x
    fits = not isinstance(array, numpy.ndarray) or (
        array.dtype.isnative and array.flags.aligned
    )
    return x if fits else _AsNative().apply((x,))[0]
