"""Convolution link that is fast on CPUs."""

from __future__ import annotations

import chainer
import chainer.links as L
import numpy

from chainer_crossbn.functions.convolution_2d import convolution_2d


class Convolution2D(L.Convolution2D):
    """Convolution link that is fast on CPUs.

    It has the arguments, parameters and serialized names of
    :class:`chainer.links.Convolution2D`, and computes :func:`convolution_2d`. Dilated
    convolutions are computed by Chainer.

    Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), for 3x3
    filters.

    Args:
        in_channels (int or None): Channels of the input; ``None`` takes them from the
            first mini-batch.
        out_channels (int): Channels of the output.
        ksize (int or tuple of int): Height and width of the filters.
        stride, pad, nobias, initialW, initial_bias, dilate, groups: As
            :class:`chainer.links.Convolution2D`.

    Attributes:
        W (chainer.Parameter): Shape (out_channels, in_channels / groups, kh, kw).
        b (chainer.Parameter or None): Shape (out_channels,).

    Example:
        >>> import numpy as np
        >>> from chainer_crossbn.links import Convolution2D
        >>> conv = Convolution2D(3, 8, ksize=3, stride=2, pad=1)
        >>> conv(np.zeros((4, 3, 32, 32), np.float32)).shape
        (4, 8, 16, 16)
    """

    def forward(self, x: chainer.Variable | numpy.ndarray) -> chainer.Variable:
        """Convolve images.

        Args:
            x (Variable or array): Shape (N, in_channels, H, W), of the dtype of ``W``.

        Returns:
            Variable: Shape (N, out_channels, H', W').

        Raises:
            chainer.utils.type_check.InvalidType: If shapes or dtypes do not match.
        """
        if self.xp is not numpy or tuple(self.dilate) != (1, 1):
            return super().forward(x)
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        stride, pad = tuple(self.stride), tuple(self.pad)
        return convolution_2d(x, self.W, self.b, stride, pad, self.groups)
