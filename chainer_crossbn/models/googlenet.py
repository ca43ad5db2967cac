"""GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", 2015)."""

from __future__ import annotations

from typing import Callable

import chainer
import chainer.functions as F
from chainer.utils.conv import get_conv_outsize

from chainer_crossbn.functions.max_pooling_2d import max_pooling_2d
from chainer_crossbn.models.blocks import (
    Blocks,
    Maker,
    local_response_normalization,
    scaled,
)
from chainer_crossbn.models.normalizations import Normalization

# Table 1 of the paper: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
_STAGES = (
    (
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
    ),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    (
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    ),
)
_FULL = 64
_CONVOLUTIONS_OF_INCEPTION = 6


def _last_side(image_size):
    """Return the side of the last maps; less than 1 if the images are too small."""
    side = get_conv_outsize(image_size, 7, 2, 3)
    for _ in range(4):
        side = get_conv_outsize(side, 3, 2, 0, cover_all=True)
    return side


class GoogLeNet(chainer.Chain):
    """3 convolutions, 9 inception modules of 6 more each, and one linear layer.

    A normalization follows each convolution, then ReLU. A convolution has a bias only
    where no normalization follows. There is no local response normalization where
    another one follows (Ioffe & Szegedy, "Batch Normalization", 2015, section 4.2.1),
    else it is as in the paper. There are no auxiliary classifiers.

    Args:
        n_class (int): Number of classes.
        normalization (Normalization): Makes the links (:mod:`.normalizations`).
        width (int): Channels of the first convolution, with which all others scale; 64
            is the full network.
        dropout (float): Dropout ratio before the linear layer.
        dropout_function (callable): Takes a Variable and the ratio.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        recomputed (bool): Whether the stem and the modules keep only their input for
            the backward pass (:func:`~chainer_crossbn.functions.recompute`).

    Attributes:
        n_normalizations (int): Number of normalizations.
        least_image_size (int): Side of the smallest supported images.
    """

    n_normalizations = 3 + _CONVOLUTIONS_OF_INCEPTION * sum(map(len, _STAGES))
    least_image_size = next(size for size in range(1, 224) if _last_side(size) >= 1)

    def __init__(
        self,
        n_class: int,
        normalization: Normalization,
        width: int = _FULL,
        dropout: float = 0.4,
        initialW=None,
        recomputed: bool = False,
        dropout_function: Callable = F.dropout,
    ) -> None:
        super().__init__()
        self._dropout_ratio = dropout
        self._dropout = dropout_function
        make = Maker(normalization, self.n_normalizations, initialW)
        blocks = [_Stem(make, width)]
        channels = scaled(192, width, _FULL)
        for stage, modules in enumerate(_STAGES):
            for i, module in enumerate(modules):
                sizes = [scaled(size, width, _FULL) for size in module]
                pooled = stage > 0 and i == 0
                blocks.append(_Inception(make, channels, sizes, pooled))
                channels = blocks[-1].out_channels
        with self.init_scope():
            self.blocks = Blocks(*blocks, recomputed=recomputed)
            self.fc = make.linear(channels, n_class)

    def forward(self, x):
        """Return the logits.

        Args:
            x (Variable or array): Images, shape (N, 3, H, W).

        Returns:
            Variable: Shape (N, n_class).
        """
        x = F.mean(self.blocks(x), axis=(2, 3))
        return self.fc(self._dropout(x, self._dropout_ratio))


class _Stem(chainer.Chain):
    def __init__(self, make, width):
        super().__init__()
        with self.init_scope():
            self.conv1 = make.conv(3, width, 7, stride=2, pad=3)
            self.reduce = make.conv(width, width, 1)
            self.conv2 = make.conv(width, scaled(192, width, _FULL), 3, pad=1)

    def forward(self, x):
        x = max_pooling_2d(self.conv1(x), 3, stride=2)
        x = self.reduce(local_response_normalization(x, self.conv1))
        x = local_response_normalization(self.conv2(x), self.conv2)
        return max_pooling_2d(x, 3, stride=2)


class _Inception(chainer.Chain):
    """Four parallel branches, after max pooling or not."""

    def __init__(self, make, in_channels, sizes, pooled):
        super().__init__()
        self._pooled = pooled
        out1, reduce3, out3, reduce5, out5, projection = sizes
        self.out_channels = out1 + out3 + out5 + projection
        with self.init_scope():
            self.conv1 = make.conv(in_channels, out1, 1)
            self.reduce3 = make.conv(in_channels, reduce3, 1)
            self.conv3 = make.conv(reduce3, out3, 3, pad=1)
            self.reduce5 = make.conv(in_channels, reduce5, 1)
            self.conv5 = make.conv(reduce5, out5, 5, pad=2)
            self.projection = make.conv(in_channels, projection, 1)

    def forward(self, x):
        if self._pooled:
            x = max_pooling_2d(x, 3, stride=2)
        branches = (
            self.conv1(x),
            self.conv3(self.reduce3(x)),
            self.conv5(self.reduce5(x)),
            self.projection(max_pooling_2d(x, 3, stride=1, pad=1)),
        )
        return F.concat(branches, axis=1)
