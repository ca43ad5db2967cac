"""VGG16 for images of any size (Simonyan & Zisserman, 2015, configuration D)."""

import chainer
import chainer.functions as F

from chainer_crossbn.max_pooling_2d import max_pooling_2d

_CHANNELS_OF_64 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


class VGG16(chainer.Chain):
    """13 convolutions and 3 fully connected layers.

    Each convolution is 3x3 with stride 1 and pad 1, followed by its normalization and
    then ReLU; it has a bias only where no normalization follows. The fully connected
    layers are not normalized. Max pooling halves the maps after each of the 5 stages.

    Args:
        n_class (int): Number of classes.
        normalization: Normalization object (:mod:`chainer_crossbn.normalizers`).
        width (int): Channels of the first stage; the others have 2, 4, 8 and 8 times
            as many. 64 is the full network.
        fc_units (int): Units of the two hidden fully connected layers.
        dropout (float): Dropout ratio behind each of these.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        image_size (int): Height and width of the images.

    Attributes:
        n_normalizations (int): How many normalizations the network has.
    """

    n_normalizations = sum(len(stage) for stage in _CHANNELS_OF_64)

    def __init__(
        self,
        n_class,
        normalization,
        width=64,
        fc_units=4096,
        dropout=0.5,
        initialW=None,
        image_size=32,
    ):
        super().__init__()
        self._dropout = dropout
        stages = []
        in_channels, index = 3, 0
        for multiples in _CHANNELS_OF_64:
            stage = chainer.ChainList()
            for multiple in multiples:
                channels = multiple * width
                norm = normalization.norm(channels, index, self.n_normalizations)
                conv = normalization.conv(
                    in_channels,
                    channels,
                    3,
                    pad=1,
                    nobias=norm is not None,
                    initialW=initialW,
                )
                stage.append(_Convolution(conv, norm))
                in_channels, index = channels, index + 1
            stages.append(stage)
        # Odd sides are halved upwards.
        side = -(-image_size // 2 ** len(stages))
        in_units = in_channels * side * side
        with self.init_scope():
            self.stages = chainer.ChainList(*stages)
            self.fc6 = normalization.linear(in_units, fc_units, initialW=initialW)
            self.fc7 = normalization.linear(fc_units, fc_units, initialW=initialW)
            self.fc8 = normalization.linear(fc_units, n_class, initialW=initialW)

    def forward(self, x):
        """Return the logits.

        Args:
            x (Variable or array): Images, shape (N, 3, image_size, image_size).

        Returns:
            Variable: Shape (N, n_class).
        """
        for stage in self.stages:
            for layer in stage:
                x = layer(x)
            x = max_pooling_2d(x, 2)
        for fc in (self.fc6, self.fc7):
            x = F.dropout(F.relu(fc(x)), self._dropout)
        return self.fc8(x)


class _Convolution(chainer.Chain):
    """A convolution, its normalization (or none) and ReLU."""

    def __init__(self, conv, norm):
        super().__init__()
        with self.init_scope():
            self.conv = conv
            self.norm = norm

    def forward(self, x):
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x)
