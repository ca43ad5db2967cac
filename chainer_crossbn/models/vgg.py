"""VGG16 for images of any size (Simonyan & Zisserman, 2015, configuration D)."""

import chainer
import chainer.functions as F

from chainer_crossbn.functions.max_pooling_2d import max_pooling_2d
from chainer_crossbn.models.blocks import Blocks, Maker

# Channels of the convolutions of each stage, as multiples of the width.
STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


class VGG16(chainer.Chain):
    """13 convolutions and 3 fully connected layers.

    Each convolution is 3x3 with stride 1 and pad 1, followed by its normalization and
    then ReLU; it has a bias only where no normalization follows. The fully connected
    layers are not normalized. Max pooling halves the maps after each of the 5 stages.

    Args:
        n_class (int): Number of classes.
        normalization: Normalization object (:mod:`.normalizations`).
        width (int): Channels of the first stage; the others have 2, 4, 8 and 8 times
            as many. 64 is the full network.
        fc_units (int): Units of the two hidden fully connected layers.
        dropout (float): Dropout ratio behind each of these.
        dropout_function (callable): Takes a Variable and the ratio.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        image_size (int): Height and width of the images.
        recomputed (bool): Whether the stages keep nothing but their input for the
            backward pass (:func:`~chainer_crossbn.functions.recompute`).

    Attributes:
        n_normalizations (int): How many normalizations the network has.
        least_image_size (int): Side of the smallest images that it takes.
    """

    n_normalizations = sum(len(stage) for stage in STAGES)
    least_image_size = 1

    def __init__(
        self,
        n_class,
        normalization,
        width=64,
        fc_units=4096,
        dropout=0.5,
        initialW=None,
        image_size=32,
        recomputed=False,
        dropout_function=F.dropout,
    ):
        super().__init__()
        self._dropout = dropout
        self._drop = dropout_function
        make = Maker(normalization, self.n_normalizations, initialW)
        stages = []
        in_channels = 3
        for multiples in STAGES:
            stage = _Stage()
            for multiple in multiples:
                stage.append(make.conv(in_channels, multiple * width, 3, pad=1))
                in_channels = multiple * width
            stages.append(stage)
        # Odd sides are halved upwards.
        side = -(-image_size // 2 ** len(stages))
        with self.init_scope():
            self.stages = Blocks(*stages, recomputed=recomputed)
            self.fc6 = make.linear(in_channels * side * side, fc_units)
            self.fc7 = make.linear(fc_units, fc_units)
            self.fc8 = make.linear(fc_units, n_class)

    def forward(self, x):
        """Return the logits.

        Args:
            x (Variable or array): Images, shape (N, 3, image_size, image_size).

        Returns:
            Variable: Shape (N, n_class).
        """
        x = self.stages(x)
        for fc in (self.fc6, self.fc7):
            x = self._drop(F.relu(fc(x)), self._dropout)
        return self.fc8(x)


class _Stage(chainer.ChainList):
    """Convolutions, and max pooling."""

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return max_pooling_2d(x, 2)
