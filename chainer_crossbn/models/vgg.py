"""VGG16 for images of any size (Simonyan & Zisserman, 2015, configuration D)."""

from __future__ import annotations

import math
from typing import Callable

import chainer
import chainer.functions as F

from chainer_crossbn.functions.max_pooling_2d import max_pooling_2d
from chainer_crossbn.models.blocks import Blocks, FullyConnected, Maker
from chainer_crossbn.models.normalizations import Normalization

# Channels of the convolutions of each stage, as multiples of the width.
STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


class VGG16(FullyConnected):
    """13 convolutions and 3 fully connected layers.

    Each convolution is 3x3 with stride 1 and pad 1, followed by its normalization and
    then ReLU; it has a bias only where no normalization follows. The fully connected
    layers are not normalized. Max pooling halves the maps after each of the 5 stages.

    Args:
        n_class (int): Number of classes.
        normalization (Normalization): Makes the links (:mod:`.normalizations`).
        width (int): Channels of the first stage; the others have 2, 4, 8 and 8 times
            as many. 64 is the full network.
        fc_units (int): Units of each of the two hidden fully connected layers.
        dropout (float): Dropout ratio after each of these.
        dropout_function (callable): Takes a Variable and the ratio.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        image_size (int): Height and width of the images.
        recomputed (bool): Whether the stages keep only their input for the backward
            pass (:func:`~chainer_crossbn.functions.recompute`).

    Attributes:
        n_normalizations (int): Number of normalizations.
        least_image_size (int): Side of the smallest supported images.
    """

    n_normalizations = sum(len(stage) for stage in STAGES)
    least_image_size = 1

    def __init__(
        self,
        n_class: int,
        normalization: Normalization,
        width: int = 64,
        fc_units: int = 4096,
        dropout: float = 0.5,
        initialW=None,
        image_size: int = 32,
        recomputed: bool = False,
        dropout_function: Callable = F.dropout,
    ) -> None:
        make = Maker(normalization, self.n_normalizations, initialW)
        stages = []
        in_channels = 3
        for multiples in STAGES:
            stage = _Stage()
            for multiple in multiples:
                stage.append(make.conv(in_channels, multiple * width, 3, pad=1))
                in_channels = multiple * width
            stages.append(stage)
        side = math.ceil(image_size / 2 ** len(stages))  # pooling rounds up
        super().__init__(
            make,
            in_size=in_channels * side * side,
            fc_units=fc_units,
            n_class=n_class,
            dropout=dropout,
            dropout_function=dropout_function,
        )
        with self.init_scope():
            self.stages = Blocks(*stages, recomputed=recomputed)

    def forward(self, x):
        """Return the logits.

        Args:
            x (Variable or array): Images, shape (N, 3, image_size, image_size).

        Returns:
            Variable: Shape (N, n_class).
        """
        return self.classify(self.stages(x))


class _Stage(chainer.ChainList):
    """Convolutions, and max pooling."""

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return max_pooling_2d(x, 2)
