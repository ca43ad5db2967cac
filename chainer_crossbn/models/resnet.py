"""Residual networks for large images.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2016), section
4.1.
"""

import chainer
import chainer.functions as F

from chainer_crossbn.functions.max_pooling_2d import max_pooling_2d
from chainer_crossbn.models.blocks import Blocks, Maker

_EXPANSION = 4


class ResNet(chainer.Chain):
    """A 7x7 convolution, 4 stages of bottleneck blocks, and one linear layer.

    A block is a 1x1, a 3x3 and a 1x1 convolution, the last of 4 times as many channels.
    A normalization follows each, then ReLU, in the last behind the addition of the
    block's input; a convolution has a bias only where no normalization follows. The
    first block of a stage adds a projection of its input, a normalized 1x1 convolution
    (option B of the paper), which is the last of the block's normalizations. There, but
    in the first stage, the first 1x1 convolution has stride 2, as the projection has.

    Classes of one depth (:class:`ResNet50` and so on) derive from it.

    Args:
        n_class (int): Number of classes.
        normalization: Normalization object (:mod:`.normalizations`).
        width (int): Channels of the first convolution; 64 is the full network.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        zero_gamma (bool): Whether the last normalization of each block's own
            convolutions starts with a scale of 0 (Goyal et al., 2017).
        recomputed (bool): Whether the stem and the blocks keep nothing but their input
            for the backward pass (:func:`~chainer_crossbn.functions.recompute`).

    Attributes:
        n_blocks (tuple of int): How many blocks each stage has.
        n_normalizations (int): How many normalizations the network has.
        least_image_size (int): Side of the smallest images that it takes.
    """

    least_image_size = 1

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.n_normalizations = 1 + 3 * sum(cls.n_blocks) + len(cls.n_blocks)

    def __init__(
        self,
        n_class,
        normalization,
        width=64,
        initialW=None,
        zero_gamma=False,
        recomputed=False,
    ):
        super().__init__()
        make = Maker(normalization, self.n_normalizations, initialW)
        blocks = [_Stem(make, width)]
        in_channels = width
        for stage, n_blocks in enumerate(self.n_blocks):
            for i in range(n_blocks):
                channels = width * 2**stage
                stride = 2 if i == 0 and stage > 0 else 1
                blocks.append(
                    _Block(make, in_channels, channels, stride, i == 0, zero_gamma)
                )
                in_channels = _EXPANSION * channels
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


class _Stem(chainer.Chain):
    def __init__(self, make, channels):
        super().__init__()
        with self.init_scope():
            self.conv1 = make.conv(3, channels, 7, stride=2, pad=3)

    def forward(self, x):
        return max_pooling_2d(self.conv1(x), 3, stride=2, pad=1, cover_all=False)


class _Block(chainer.Chain):
    def __init__(self, make, in_channels, channels, stride, projected, zero_gamma):
        super().__init__()
        out = _EXPANSION * channels
        with self.init_scope():
            self.conv1 = make.conv(in_channels, channels, 1, stride=stride)
            self.conv2 = make.conv(channels, channels, 3, pad=1)
            self.conv3 = make.conv(channels, out, 1, relu=False)
            self.projection = (
                make.conv(in_channels, out, 1, stride=stride, relu=False)
                if projected
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


class ResNet101(ResNet):
    """:class:`ResNet` of 101 layers, 44.5 million parameters."""

    n_blocks = (3, 4, 23, 3)


class ResNet152(ResNet):
    """:class:`ResNet` of 152 layers, 60.2 million parameters."""

    n_blocks = (3, 8, 36, 3)
