"""Linear layer that is fast on CPUs."""

from __future__ import annotations

import math

import chainer
import chainer.functions as F
import numpy
from chainer import function_node
from chainer.utils import type_check

from chainer_crossbn import kernels
from chainer_crossbn.functions import _gradients
from chainer_crossbn.functions._native import as_native


class _Linear(function_node.FunctionNode):
    """y = x W' + b"""

    def check_type_forward(self, in_types):
        x, w = in_types[:2]
        type_check.expect(
            x.ndim == 2, w.ndim == 2, x.dtype == w.dtype, x.shape[1] == w.shape[1]
        )
        if len(in_types) == 3:
            b = in_types[2]
            type_check.expect(b.dtype == x.dtype, b.ndim == 1, b.shape[0] == w.shape[0])

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, w, *bias = map(numpy.ascontiguousarray, inputs)
        y = kernels.matmul.forward(x, w)
        if bias:
            y += bias[0]
        return (y,)

    def backward(self, indexes, grad_outputs):
        x, w = self.get_retained_inputs()
        (gy,) = grad_outputs
        found = []
        if 0 in indexes:
            found += _gradients.apply(_InputGradient(), (gy, w))
        if 1 in indexes:
            found += _gradients.apply(_WeightGradient(), (x, gy))
        if 2 in indexes:
            found.append(F.sum(gy, axis=0))
        return tuple(found)


class _InputGradient(function_node.FunctionNode):
    """gx = gy W"""

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        gy, w = map(numpy.ascontiguousarray, inputs)
        return (kernels.matmul.gradient_of_input(gy, w),)

    def backward(self, indexes, grad_outputs):
        gy, w = self.get_retained_inputs()
        (ggx,) = grad_outputs
        products = {
            0: lambda: _gradients.apply(_Linear(), (ggx, w)),
            1: lambda: _gradients.apply(_WeightGradient(), (ggx, gy)),
        }
        return tuple(products[i]()[0] for i in indexes)


class _WeightGradient(function_node.FunctionNode):
    """gW = gy' x"""

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, gy = map(numpy.ascontiguousarray, inputs)
        return (kernels.matmul.gradient_of_weights(x, gy),)

    def backward(self, indexes, grad_outputs):
        x, gy = self.get_retained_inputs()
        (ggw,) = grad_outputs
        products = {
            0: lambda: _gradients.apply(_InputGradient(), (gy, ggw)),
            1: lambda: _gradients.apply(_Linear(), (x, ggw)),
        }
        return tuple(products[i]()[0] for i in indexes)


def linear(
    x: chainer.Variable | numpy.ndarray,
    W: chainer.Variable | numpy.ndarray,
    b: chainer.Variable | numpy.ndarray | None = None,
) -> chainer.Variable:
    """Linear function, fast on CPUs for mini-batches of few images.

    Those go through kernels of our own where the weights are many
    (:mod:`.kernels.cpu.matmul`), others through BLAS. What is on a GPU,
    or of another dtype than float32 and float64, goes to
    :func:`chainer.functions.linear`.

    Args:
        x (Variable or array): Shape (N, ...), of whose axes all but the first are taken
            as one, of I elements.
        W (Variable or array): Shape (O, I), of the dtype of ``x``.
        b (Variable or array or None): Shape (O,).

    Returns:
        Variable: Shape (N, O).
    """
    x, W, b = as_native(x), as_native(W), None if b is None else as_native(b)
    array = x.array if isinstance(x, chainer.Variable) else x
    if not kernels.are_compiled_for(array) or x.dtype != W.dtype:
        return F.linear(x, W, b)
    if x.ndim > 2:
        x = F.reshape(x, (len(x), math.prod(x.shape[1:])))
    inputs = (x, W) if b is None else (x, W, b)
    return _Linear().apply(inputs)[0]
