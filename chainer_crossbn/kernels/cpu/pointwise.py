"""Convolution for CPUs by filters of 1x1, without pad: one matrix product.

Images have their channels last in memory, so that they are matrices as they are; what a
stride leaves of them is copied.
"""

import numpy

from chainer_crossbn.kernels.cpu.memory import as_channels_first


def _rows(x, stride=(1, 1)):
    """Return each position that a stride reaches as a row of channels."""
    reached = x[:, :, :: stride[0], :: stride[1]].transpose(0, 2, 3, 1)
    return numpy.ascontiguousarray(reached).reshape(-1, x.shape[1])


def _matrix(w):
    return w.reshape(w.shape[:2])


def convolve(x, w, bias, stride):
    (n, _, h, width), (sy, sx) = x.shape, stride
    y = _rows(x, stride) @ _matrix(w).T
    if bias is not None:
        y += bias
    return as_channels_first(y.reshape(n, -(-h // sy), -(-width // sx), len(w)))


def gradient_of_input(gy, w, x_shape, stride):
    n, c, h, width = x_shape
    oh, ow = gy.shape[2:]
    g = (_rows(gy) @ _matrix(w)).reshape(n, oh, ow, c)
    if stride == (1, 1):
        return as_channels_first(g)
    gx = numpy.zeros((n, h, width, c), gy.dtype)
    gx[:, :: stride[0], :: stride[1]] = g
    return as_channels_first(gx)


def gradient_of_filters(x, gy, w_shape, stride):
    return (_rows(gy).T @ _rows(x, stride)).reshape(w_shape)
