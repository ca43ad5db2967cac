"""GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", 2015)."""

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
_OF_INCEPTION = 6
# In the second stage: behind 4a and 4d.
_HEADS = (0, 3)


def _sides(image_size):
    """Return the sides of the maps of the second and the third stage of modules."""
    side = get_conv_outsize(image_size, 7, 2, 3)
    sides = []
    for _ in range(4):
        side = get_conv_outsize(side, 3, 2, 0, cover_all=True)
        sides.append(side)
    return sides[2:]


class GoogLeNet(chainer.Chain):
    """3 convolutions, 9 inception modules of 6 more each, and one linear layer.

    A normalization follows each convolution, then ReLU; a convolution has a bias only
    where no normalization follows. Where batch normalization follows there is no local
    response normalization (Ioffe & Szegedy, "Batch Normalization", 2015, section
    4.2.1), else it is as in the paper.

    Args:
        n_class (int): Number of classes.
        normalization: Normalization object (:mod:`.normalizations`).
        width (int): Channels of the first convolution, with which all others scale; 64
            is the full network.
        dropout (float): Dropout ratio before the linear layer.
        dropout_function (callable): Takes a Variable and the ratio.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
        recomputed (bool): Whether the stem and the modules keep nothing but their input
            for the backward pass (:func:`~chainer_crossbn.functions.recompute`).
        auxiliary (bool): Whether there are the two auxiliary classifiers, which are
            not normalized.
        image_size (int): Side of the images, for the auxiliary classifiers alone.

    Attributes:
        n_normalizations (int): How many normalizations the network has.
        least_image_size (int): Side of the smallest images that it takes.

    Raises:
        ValueError: If the images are too small for auxiliary classifiers.
    """

    n_normalizations = 3 + _OF_INCEPTION * sum(map(len, _STAGES))
    least_image_size = next(size for size in range(1, 224) if _sides(size)[-1] >= 1)

    def __init__(
        self,
        n_class,
        normalization,
        width=_FULL,
        dropout=0.4,
        initialW=None,
        recomputed=False,
        auxiliary=False,
        image_size=224,
        dropout_function=F.dropout,
    ):
        super().__init__()
        self._dropout = dropout
        self._drop = dropout_function
        make = Maker(normalization, self.n_normalizations, initialW)
        stem = _Stem(make, width)
        channels = scaled(192, width, _FULL)
        stages, with_heads = [], []
        for stage, modules in enumerate(_STAGES):
            blocks = []
            for i, module in enumerate(modules):
                sizes = [scaled(size, width, _FULL) for size in module]
                pooled = stage > 0 and i == 0
                blocks.append(_Inception(make, channels, sizes, pooled))
                channels = sum(sizes[i] for i in (0, 2, 4, 5))
                if stage == 1 and i in _HEADS:
                    with_heads.append(channels)
            stages.append(blocks)
        first, second, third = stages
        parts = [
            [stem, *first, *second[: _HEADS[0] + 1]],
            second[_HEADS[0] + 1 : _HEADS[1] + 1],
            [*second[_HEADS[1] + 1 :], *third],
        ]
        with self.init_scope():
            self.parts = chainer.ChainList(
                *(Blocks(*part, recomputed=recomputed) for part in parts)
            )
            self.fc = make.linear(channels, n_class)
            if auxiliary:
                units = [scaled(size, width, _FULL) for size in (128, 1024)]
                side = get_conv_outsize(_sides(image_size)[0], 5, 3, 0)
                if side < 1:
                    raise ValueError(
                        f"images of {image_size}x{image_size} are too small for "
                        "auxiliary classifiers"
                    )
                self.heads = chainer.ChainList(
                    *(
                        _Head(normalization, size, side, *units, n_class, initialW)
                        for size in with_heads
                    )
                )

    def forward(self, x):
        """Return the logits.

        Args:
            x (Variable or array): Images, shape (N, 3, H, W).

        Returns:
            Variable: Shape (N, n_class).
        """
        for part in self.parts:
            x = part(x)
        return self._classify(x)

    def forward_with_heads(self, x):
        """Return the logits, and those of the two auxiliary classifiers.

        In training the paper adds 0.3 times the losses of the latter.

        Args:
            x (Variable or array): Images, shape (N, 3, image_size, image_size).

        Returns:
            tuple of Variable: Three of shape (N, n_class).
        """
        seen = []
        for part in self.parts:
            x = part(x)
            seen.append(x)
        heads = (head(y) for head, y in zip(self.heads, seen))
        return (self._classify(x), *heads)

    def _classify(self, x):
        return self.fc(self._drop(F.mean(x, axis=(2, 3)), self._dropout))


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
    """Four branches side by side, which may follow max pooling."""

    def __init__(self, make, in_channels, sizes, pooled):
        super().__init__()
        self._pooled = pooled
        out1, reduce3, out3, reduce5, out5, projection = sizes
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


class _Head(chainer.Chain):
    """An auxiliary classifier."""

    def __init__(
        self, normalization, in_channels, side, channels, units, n_class, initialW
    ):
        super().__init__()
        with self.init_scope():
            self.conv = normalization.conv(in_channels, channels, 1, initialW=initialW)
            self.fc1 = normalization.linear(
                channels * side * side, units, initialW=initialW
            )
            self.fc2 = normalization.linear(units, n_class, initialW=initialW)

    def forward(self, x):
        x = F.relu(self.conv(F.average_pooling_2d(x, 5, stride=3)))
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.7))
