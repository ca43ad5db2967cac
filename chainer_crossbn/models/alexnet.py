"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012)."""

from __future__ import annotations

from typing import Callable

import chainer
import chainer.functions as F
from chainer.utils.conv import get_conv_outsize

from chainer_crossbn.functions.max_pooling_2d import max_pooling_2d
from chainer_crossbn.models.blocks import (
    Blocks,
    FullyConnected,
    Maker,
    local_response_normalization,
    scaled,
)
from chainer_crossbn.models.normalizations import Normalization

_FULL = 96
_GROUPS = 2
# Channels, side of the filters, stride, pad, groups, whether max pooling follows.
_CONVOLUTIONS = (
    (96, 11, 4, 2, 1, True),
    (256, 5, 1, 2, _GROUPS, True),
    (384, 3, 1, 1, 1, False),
    (384, 3, 1, 1, _GROUPS, False),
    (256, 3, 1, 1, _GROUPS, True),
)
_RESPONSES_NORMALIZED = 2


def _side(image_size):
    """Return the side of the last maps; less than 1 if the images are too small."""
    side = image_size
    for _, ksize, stride, pad, _, pooled in _CONVOLUTIONS:
        side = get_conv_outsize(side, ksize, stride, pad)
        if pooled:
            side = get_conv_outsize(side, 3, 2, 0)
    return side


class AlexNet(FullyConnected):
    """5 convolutions, three of which in two groups, and 3 fully connected layers.

    A normalization follows each convolution, then ReLU. A convolution has a bias only
    where no normalization follows. Local response normalization follows the first two,
    as in the paper, where no other normalization does. The fully connected layers are
    not normalized. The first convolution has a pad of 2, which gives the maps of 55x55
    that the paper has for images of 224x224.

    Args:
        n_class (int): Number of classes.
        normalization (Normalization): Makes the links (:mod:`.normalizations`).
        width (int): Channels of the first convolution, with which the others scale (all
            are even); 96 is the full network.
        fc_units (int): Units of each of the two hidden fully connected layers.
        dropout (float): Dropout ratio after each of these.
        dropout_function (callable): Takes a Variable and the ratio.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        image_size (int): Side of the images.
        recomputed (bool): Whether the convolutions keep only their input for the
            backward pass (:func:`~chainer_crossbn.functions.recompute`).

    Attributes:
        n_normalizations (int): Number of normalizations.
        least_image_size (int): Side of the smallest supported images.

    Raises:
        ValueError: If the images are too small.
    """

    n_normalizations = len(_CONVOLUTIONS)
    least_image_size = next(size for size in range(1, 224) if _side(size) >= 1)

    def __init__(
        self,
        n_class: int,
        normalization: Normalization,
        width: int = _FULL,
        fc_units: int = 4096,
        dropout: float = 0.5,
        initialW=None,
        image_size: int = 224,
        recomputed: bool = False,
        dropout_function: Callable = F.dropout,
    ) -> None:
        side = _side(image_size)
        if side < 1:
            least = self.least_image_size
            raise ValueError(
                f"AlexNet takes images of {least}x{least} or more, not of "
                f"{image_size}x{image_size}"
            )
        make = Maker(normalization, self.n_normalizations, initialW)
        blocks = []
        in_channels = 3
        for i, (full, ksize, stride, pad, groups, pooled) in enumerate(_CONVOLUTIONS):
            channels = scaled(full, width, _FULL, multiple=_GROUPS)
            conv = make.conv(
                in_channels, channels, ksize, stride=stride, pad=pad, groups=groups
            )
            blocks.append(_Layer(conv, i < _RESPONSES_NORMALIZED, pooled))
            in_channels = channels
        super().__init__(
            make,
            in_size=in_channels * side * side,
            fc_units=fc_units,
            n_class=n_class,
            dropout=dropout,
            dropout_function=dropout_function,
        )
        with self.init_scope():
            self.blocks = Blocks(*blocks, recomputed=recomputed)

    def forward(self, x):
        """Return the logits.

        Args:
            x (Variable or array): Images, shape (N, 3, image_size, image_size).

        Returns:
            Variable: Shape (N, n_class).
        """
        return self.classify(self.blocks(x))


class _Layer(chainer.Chain):
    def __init__(self, conv, responses_normalized, pooled):
        super().__init__()
        self._responses_normalized = responses_normalized
        self._pooled = pooled
        with self.init_scope():
            self.conv = conv

    def forward(self, x):
        x = self.conv(x)
        if self._responses_normalized:
            x = local_response_normalization(x, self.conv)
        return max_pooling_2d(x, 3, 2, cover_all=False) if self._pooled else x
