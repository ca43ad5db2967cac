"""Residual networks for 32x32 images.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2016), section
4.2.
"""

import chainer
import chainer.functions as F

from chainer_crossbn.functions.subsample import subsample_and_widen
from chainer_crossbn.models.blocks import Blocks, Maker

_MULTIPLES = (1, 2, 4)


class SmallResNet(chainer.Chain):
    """A 3x3 convolution, 3 stages of blocks of two more each, and one linear layer.

    A normalization follows each convolution, then ReLU, in a block's second one behind
    the addition of the block's input; a convolution has a bias only where no
    normalization follows. The first convolution of the second and the third stage has
    stride 2; the input that is added there is subsampled, and zeros are its new
    channels (option A of the paper), so that shortcuts have no parameters.

    Classes of one depth (:class:`ResNet20` and so on) derive from it.

    Args:
        n_class (int): Number of classes.
        normalization: Normalization object (:mod:`.normalizations`).
        width (int): Channels of the first stage; the others have 2 and 4 times as many.
            16 is the full network.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        zero_gamma (bool): Whether the last normalization of each block starts with a
            scale of 0, so that each block starts as the identity (Goyal et al., 2017).
        recomputed (bool): Whether the blocks keep nothing but their input for the
            backward pass (:func:`~chainer_crossbn.functions.recompute`).

    Attributes:
        n_blocks (int): How many blocks each stage has.
        n_normalizations (int): How many normalizations the network has.
        least_image_size (int): Side of the smallest images that it takes.
    """

    least_image_size = 1

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.n_normalizations = 1 + 2 * len(_MULTIPLES) * cls.n_blocks

    def __init__(
        self,
        n_class,
        normalization,
        width=16,
        initialW=None,
        zero_gamma=False,
        recomputed=False,
    ):
        super().__init__()
        make = Maker(normalization, self.n_normalizations, initialW)
        blocks = [make.conv(3, width, 3, pad=1)]
        in_channels = width
        for multiple in _MULTIPLES:
            for i in range(self.n_blocks):
                stride = 2 if i == 0 and multiple > 1 else 1
                channels = multiple * width
                blocks.append(_Block(make, in_channels, channels, stride, zero_gamma))
                in_channels = channels
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


class _Block(chainer.Chain):
    def __init__(self, make, in_channels, channels, stride, zero_gamma):
        super().__init__()
        self._stride = stride
        self._channels = channels
        with self.init_scope():
            self.conv1 = make.conv(in_channels, channels, 3, stride=stride, pad=1)
            self.conv2 = make.conv(channels, channels, 3, pad=1, relu=False)
        if zero_gamma:
            self.conv2.start_at_zero()

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        if self._stride > 1:
            x = subsample_and_widen(x, self._stride, self._channels)
        return F.relu(y + x)


class ResNet20(SmallResNet):
    """:class:`SmallResNet` of 20 layers, 0.27 million parameters."""

    n_blocks = 3


class ResNet56(SmallResNet):
    """:class:`SmallResNet` of 56 layers, 0.85 million parameters."""

    n_blocks = 9


class ResNet110(SmallResNet):
    """:class:`SmallResNet` of 110 layers, 1.7 million parameters."""

    n_blocks = 18
