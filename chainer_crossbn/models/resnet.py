"""Residual networks for large images.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2016), section
4.1.
"""

from __future__ import annotations

from typing import Callable

import chainer
import chainer.functions as F

from chainer_crossbn.functions.max_pooling_2d import max_pooling_2d
from chainer_crossbn.models.blocks import Blocks, Maker
from chainer_crossbn.models.normalizations import Normalization

_EXPANSION = 4


class ResidualNetwork(chainer.Chain):
    """Base of residual networks: a stem, stages of blocks, and one linear layer.

    The stages have 1, 2, 4 ... times ``width`` channels. The first block of each but
    the first stage has stride 2.

    Args:
        make (Maker): Makes the layers.
        stem (chainer.Link): Comes before the blocks.
        block (callable): Makes a block with the attribute ``out_channels`` from
            ``make``, the channels of its input, the channels of its stage, its stride
            and ``zero_gamma``.
        width (int): Channels of the stem and of the first stage.
        n_class (int): Number of classes.
        zero_gamma (bool): Whether the last normalization of each block's own
            convolutions starts with a scale of 0.
        recomputed (bool): Whether the stem and the blocks keep only their input for
            the backward pass.

    Attributes:
        n_blocks (tuple of int): Number of blocks of each stage.
        n_normalizations (int): Number of normalizations.
        least_image_size (int): Side of the smallest supported images.
    """

    n_blocks: tuple[int, ...]
    n_normalizations: int
    least_image_size = 1

    def __init__(
        self,
        make: Maker,
        stem: chainer.Link,
        block: Callable[..., chainer.Link],
        width: int,
        n_class: int,
        zero_gamma: bool,
        recomputed: bool,
    ) -> None:
        super().__init__()
        blocks = [stem]
        in_channels = width
        for stage, n_blocks in enumerate(self.n_blocks):
            for i in range(n_blocks):
                stride = 2 if i == 0 and stage > 0 else 1
                channels = width * 2**stage
                blocks.append(block(make, in_channels, channels, stride, zero_gamma))
                in_channels = blocks[-1].out_channels
        with self.init_scope():
            self.blocks = Blocks(*blocks, recomputed=recomputed)
            self.fc = make.linear(in_channels, n_class)

    def forward(self, x):
        """Return the logits.

        Args:
            x (Variable or array): Images, shape (N, 3, H, W).

        Returns:
            Variable: Shape (N, n_class).
        """
        return self.fc(F.mean(self.blocks(x), axis=(2, 3)))


class ResNet(ResidualNetwork):
    """A 7x7 convolution, 4 stages of bottleneck blocks, and one linear layer.

    A block is a 1x1, a 3x3 and a 1x1 convolution, the last with 4 times as many
    channels. A normalization follows each, then ReLU, which in the last follows the
    addition of the block's input. A convolution has a bias only where no normalization
    follows. The first block of a stage adds a projection of its input, a normalized 1x1
    convolution (option B of the paper), which is the last of the block's
    normalizations. Where a block has stride 2, its first 1x1 convolution and its
    projection have it.

    Classes of one depth (:class:`ResNet50` and so on) derive from it.

    Args:
        n_class (int): Number of classes.
        normalization (Normalization): Makes the links (:mod:`.normalizations`).
        width (int): Channels of the first convolution; 64 is the full network.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        zero_gamma (bool): Whether the last normalization of each block's own
            convolutions starts with a scale of 0 (Goyal et al., 2017).
        recomputed (bool): Whether the stem and the blocks keep only their input for
            the backward pass (:func:`~chainer_crossbn.functions.recompute`).
    """

    def __init__(
        self,
        n_class: int,
        normalization: Normalization,
        width: int = 64,
        initialW=None,
        zero_gamma: bool = False,
        recomputed: bool = False,
    ) -> None:
        make = Maker(normalization, self.n_normalizations, initialW)
        super().__init__(
            make,
            stem=_Stem(make, width),
            block=_Block,
            width=width,
            n_class=n_class,
            zero_gamma=zero_gamma,
            recomputed=recomputed,
        )


class _Stem(chainer.Chain):
    def __init__(self, make, channels):
        super().__init__()
        with self.init_scope():
            self.conv1 = make.conv(3, channels, 7, stride=2, pad=3)

    def forward(self, x):
        return max_pooling_2d(self.conv1(x), 3, stride=2, pad=1, cover_all=False)


class _Block(chainer.Chain):
    def __init__(self, make, in_channels, channels, stride, zero_gamma):
        super().__init__()
        self.out_channels = _EXPANSION * channels
        with self.init_scope():
            self.conv1 = make.conv(in_channels, channels, 1, stride=stride)
            self.conv2 = make.conv(channels, channels, 3, pad=1)
            self.conv3 = make.conv(channels, self.out_channels, 1, relu=False)
            self.projection = (
                make.conv(in_channels, self.out_channels, 1, stride=stride, relu=False)
                if in_channels != self.out_channels
                else None
            )
        if zero_gamma:
            self.conv3.start_at_zero()

    def forward(self, x):
        y = self.conv3(self.conv2(self.conv1(x)))
        return F.relu(y + (x if self.projection is None else self.projection(x)))


class ResNet50(ResNet):
    """:class:`ResNet` of 50 layers, 25.6 million parameters."""

    n_blocks = (3, 4, 6, 3)
    n_normalizations = 53


class ResNet101(ResNet):
    """:class:`ResNet` of 101 layers, 44.5 million parameters."""

    n_blocks = (3, 4, 23, 3)
    n_normalizations = 104


class ResNet152(ResNet):
    """:class:`ResNet` of 152 layers, 60.2 million parameters."""

    n_blocks = (3, 8, 36, 3)
    n_normalizations = 155
