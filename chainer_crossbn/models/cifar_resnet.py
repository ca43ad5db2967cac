"""Residual networks for 32x32 images.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2016), section
4.2.
"""

from __future__ import annotations

import chainer
import chainer.functions as F

from chainer_crossbn.functions.subsample import subsample_and_widen
from chainer_crossbn.models.blocks import Maker
from chainer_crossbn.models.normalizations import Normalization
from chainer_crossbn.models.resnet import ResidualNetwork


class SmallResNet(ResidualNetwork):
    """A 3x3 convolution, 3 stages of blocks of two more each, and one linear layer.

    A normalization follows each convolution, then ReLU, which in a block's second one
    follows the addition of the block's input. A convolution has a bias only where no
    normalization follows. The first convolution of the second and the third stage has
    stride 2. The input that is added there is subsampled and gets new channels of zeros
    (option A of the paper), so that shortcuts have no parameters.

    Classes of one depth (:class:`ResNet20` and so on) derive from it.

    Args:
        n_class (int): Number of classes.
        normalization (Normalization): Makes the links (:mod:`.normalizations`).
        width (int): Channels of the first stage; the others have 2 and 4 times as many.
            16 is the full network.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        zero_gamma (bool): Whether the last normalization of each block starts with a
            scale of 0, so that each block starts as the identity (Goyal et al., 2017).
        recomputed (bool): Whether the blocks keep only their input for the backward
            pass (:func:`~chainer_crossbn.functions.recompute`).
    """

    def __init__(
        self,
        n_class: int,
        normalization: Normalization,
        width: int = 16,
        initialW=None,
        zero_gamma: bool = False,
        recomputed: bool = False,
    ) -> None:
        make = Maker(normalization, self.n_normalizations, initialW)
        super().__init__(
            make,
            stem=make.conv(3, width, 3, pad=1),
            block=_Block,
            width=width,
            n_class=n_class,
            zero_gamma=zero_gamma,
            recomputed=recomputed,
        )


class _Block(chainer.Chain):
    def __init__(self, make, in_channels, channels, stride, zero_gamma):
        super().__init__()
        self.out_channels = channels
        self._stride = stride
        with self.init_scope():
            self.conv1 = make.conv(in_channels, channels, 3, stride=stride, pad=1)
            self.conv2 = make.conv(channels, channels, 3, pad=1, relu=False)
        if zero_gamma:
            self.conv2.start_at_zero()

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        if self._stride > 1:
            x = subsample_and_widen(x, self._stride, self.out_channels)
        return F.relu(y + x)


class ResNet20(SmallResNet):
    """:class:`SmallResNet` of 20 layers, 0.27 million parameters."""

    n_blocks = (3, 3, 3)
    n_normalizations = 19


class ResNet56(SmallResNet):
    """:class:`SmallResNet` of 56 layers, 0.85 million parameters."""

    n_blocks = (9, 9, 9)
    n_normalizations = 55


class ResNet110(SmallResNet):
    """:class:`SmallResNet` of 110 layers, 1.7 million parameters."""

    n_blocks = (18, 18, 18)
    n_normalizations = 109
