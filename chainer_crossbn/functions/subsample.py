"""Shortcuts of residual networks that have no parameters."""

from __future__ import annotations

import chainer
import numpy
from chainer import backend, function_node
from chainer.utils import type_check

from chainer_crossbn.functions import _gradients


class _SubsampleAndWiden(function_node.FunctionNode):
    def __init__(self, stride, channels):
        self._stride = stride
        self._channels = channels

    def check_type_forward(self, in_types):
        type_check.expect(in_types.size() == 1, in_types[0].ndim == 4)
        type_check.expect(in_types[0].shape[1] <= self._channels)

    def forward(self, inputs):
        (x,) = inputs
        self._shape = x.shape
        part = x[:, :, :: self._stride, :: self._stride]
        y = _zeros((len(x), self._channels, *part.shape[2:]), x)
        y[:, : x.shape[1]] = part
        return (y,)

    def backward(self, indexes, grad_outputs):
        return _gradients.apply(_Back(self._stride, self._shape), grad_outputs)


class _Back(function_node.FunctionNode):
    """The transpose of it."""

    def __init__(self, stride, shape):
        self._stride = stride
        self._shape = shape

    def forward(self, inputs):
        (gy,) = inputs
        self._channels = gy.shape[1]
        gx = _zeros(self._shape, gy)
        gx[:, :, :: self._stride, :: self._stride] = gy[:, : self._shape[1]]
        return (gx,)

    def backward(self, indexes, grad_outputs):
        (ggx,) = grad_outputs
        return (subsample_and_widen(ggx, self._stride, self._channels),)


def _zeros(shape, like):
    """Return zeros with their channels last in memory where an array has them there."""
    xp = backend.get_array_module(like)
    if like.flags.c_contiguous:
        return xp.zeros(shape, like.dtype)
    n, c, h, w = shape
    return xp.zeros((n, h, w, c), like.dtype).transpose(0, 3, 1, 2)


def subsample_and_widen(
    x: chainer.Variable | numpy.ndarray, stride: int, channels: int
) -> chainer.Variable:
    """Keep each ``stride``-th row and column, and add channels of zeros behind.

    Option A of He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition"
    (2016).

    Args:
        x (Variable or array): Shape (N, C, H, W).
        stride (int): Of both axes.
        channels (int): How many come out, C at least.

    Returns:
        Variable: Shape (N, channels, ceil(H / stride), ceil(W / stride)).
    """
    return _SubsampleAndWiden(stride, channels).apply((chainer.as_variable(x),))[0]
