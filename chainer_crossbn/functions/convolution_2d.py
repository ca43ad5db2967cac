"""Convolution that is fast on CPUs."""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy
from chainer import function_node
from chainer.utils import type_check

from chainer_crossbn import kernels
from chainer_crossbn.functions import _gradients
from chainer_crossbn.functions._native import as_native


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


class _Kernels:
    """The kernels that suit one convolution, and its three products."""

    def __init__(self, x_shape, w_shape, stride, pad):
        side = w_shape[2:]
        self._where = ()
        if (side, pad) == ((1, 1), (0, 0)):
            self._module, self._where = kernels.pointwise, (stride,)
        elif (side, stride, pad) == (
            (3, 3),
            (1, 1),
            (1, 1),
        ) and kernels.winograd.pays(x_shape, w_shape):
            self._module = kernels.winograd
        else:
            self._module, self._where = kernels.im2col, (stride, pad)

    def forward(self, x, w, bias):
        return self._module.convolve(x, w, bias, *self._where)

    def gradient_of_input(self, gy, w, x_shape):
        shapes = (x_shape,) if self._where else ()
        return self._module.gradient_of_input(gy, w, *shapes, *self._where)

    def gradient_of_filters(self, x, gy, w_shape):
        shapes = (w_shape,) if self._where else ()
        return self._module.gradient_of_filters(x, gy, *shapes, *self._where)


class _Convolution2D(function_node.FunctionNode):
    def __init__(self, stride, pad):
        self._stride = stride
        self._pad = pad

    def check_type_forward(self, in_types):
        x, w = in_types[:2]
        type_check.expect(
            x.ndim == 4, w.ndim == 4, x.dtype == w.dtype, x.shape[1] == w.shape[1]
        )
        for size, kernel, pad in zip((2, 3), (2, 3), self._pad):
            type_check.expect(x.shape[size] + 2 * pad >= w.shape[kernel])
        if len(in_types) == 3:
            type_check.expect(
                in_types[2].dtype == x.dtype,
                in_types[2].ndim == 1,
                in_types[2].shape[0] == w.shape[0],
            )

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, w, *bias = inputs
        self._kernels = _Kernels(x.shape, w.shape, self._stride, self._pad)
        return (self._kernels.forward(x, w, bias[0] if bias else None),)

    def backward(self, indexes, grad_outputs):
        x, w = self.get_retained_inputs()
        (gy,) = grad_outputs
        node = _Gradients(self._kernels, self._stride, self._pad, 0 in indexes)
        gw, *gx = _gradients.apply(node, (x, w, gy))
        found = {0: gx[0] if gx else None, 1: gw}
        if 2 in indexes:
            found[2] = F.sum(gy, axis=(0, 2, 3))
        return tuple(found[i] for i in indexes)


class _Gradients(function_node.FunctionNode):
    """Gradients of the filters and, where it is wanted, of the input."""

    def __init__(self, kernels, stride, pad, of_input):
        self._kernels = kernels
        self._stride = stride
        self._pad = pad
        self._of_input = of_input

    def forward(self, inputs):
        self.retain_inputs((0, 1, 2))
        x, w, gy = inputs
        gw = self._kernels.gradient_of_filters(x, gy, w.shape)
        if not self._of_input:
            return (gw,)
        return gw, self._kernels.gradient_of_input(gy, w, x.shape)

    def backward(self, indexes, grad_outputs):
        """Differentiate once more, through Chainer's own functions."""
        x, w, gy = inputs = self.get_retained_inputs()
        # The graph of the gradients is there for this function alone.
        with chainer.force_backprop_mode():
            y = F.convolution_2d(x, w, stride=self._stride, pad=self._pad)
            firsts = chainer.grad([y], [w, x], [gy], enable_double_backprop=True)
        pairs = [(g, gg) for g, gg in zip(firsts, grad_outputs) if gg is not None]
        products = chainer.grad(
            [g for g, _ in pairs],
            inputs,
            [gg for _, gg in pairs],
            enable_double_backprop=chainer.config.enable_backprop,
        )
        return tuple(products[i] for i in indexes)


def convolution_2d(
    x: chainer.Variable | numpy.ndarray,
    W: chainer.Variable | numpy.ndarray,
    b: chainer.Variable | numpy.ndarray | None = None,
    stride: int | tuple[int, int] = 1,
    pad: int | tuple[int, int] = 0,
    groups: int = 1,
) -> chainer.Variable:
    """Two-dimensional convolution, fast on CPUs.

    Filters of 3x3 with stride 1 and pad 1 go through Winograd's algorithm where it pays
    (:mod:`.kernels.cpu.winograd`), with a rounding error of some 1e-5 of
    the largest output in float32; those of 1x1 without pad through one matrix product
    (:mod:`.kernels.cpu.pointwise`); others through matrix products on
    blocks of columns (:mod:`.kernels.cpu.im2col`). What is on a GPU, or of
    another dtype than float32 and float64, goes to
    :func:`chainer.functions.convolution_2d`.

    Args:
        x (Variable or array): Shape (N, C, H, W).
        W (Variable or array): Shape (K, C / groups, kh, kw), of the dtype of ``x``.
        b (Variable or array or None): Shape (K,).
        stride (int or tuple of int): Of both axes, or of each.
        pad (int or tuple of int): Likewise.
        groups (int): Groups of channels that are convolved for themselves.

    Returns:
        Variable: Shape (N, K, (H + 2 pad - kh) // stride + 1, ...).
    """
    x, W, b = as_native(x), as_native(W), None if b is None else as_native(b)
    array = x.array if isinstance(x, chainer.Variable) else x
    if not kernels.are_compiled_for(array):
        return F.convolution_2d(x, W, b, stride, pad, groups=groups)
    if groups > 1:
        parts = zip(F.split_axis(x, groups, 1), F.split_axis(W, groups, 0))
        y = F.concat([convolution_2d(*part, None, stride, pad) for part in parts])
        return y if b is None else F.bias(y, b)
    inputs = (x, W) if b is None else (x, W, b)
    return _Convolution2D(_pair(stride), _pair(pad)).apply(inputs)[0]
