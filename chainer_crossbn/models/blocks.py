"""Parts that the networks share."""

from __future__ import annotations

from typing import Callable

import chainer
import chainer.functions as F

from chainer_crossbn.functions.recompute import recompute
from chainer_crossbn.links.cross_batch_normalization import CrossBatchNormalization


class Convolution(chainer.Chain):
    """A convolution, its normalization (or none) and ReLU (or none).

    Args:
        conv (chainer.Link): The convolution.
        norm (chainer.Link or None): The normalization.
        relu (bool): Whether ReLU follows.
    """

    def __init__(
        self, conv: chainer.Link, norm: chainer.Link | None, relu: bool = True
    ) -> None:
        super().__init__()
        self._relu = relu
        with self.init_scope():
            self.conv = conv
            self.norm = norm

    def forward(self, x):
        x = self.conv(x)
        if self._relu and isinstance(self.norm, CrossBatchNormalization):
            return self.norm(x, relu=True)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x) if self._relu else x

    def start_at_zero(self) -> None:
        """Initialize the normalization's scale with 0, where there is one."""
        gamma = getattr(self.norm, "gamma", None)
        if gamma is None:
            return
        if gamma.array is None:
            gamma.initializer = chainer.initializers.Constant(0)
        else:
            gamma.array[...] = 0


class Maker:
    """Makes the layers of a network, whose convolutions must come in forward order.

    Args:
        normalization (Normalization): Makes the links (:mod:`.normalizations`).
        total (int): Number of normalizations of the network.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
    """

    def __init__(self, normalization, total: int, initialW=None) -> None:
        self._normalization = normalization
        self._total = total
        self._initialW = initialW
        self._index = 0

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        ksize: int,
        relu: bool = True,
        **options,
    ) -> Convolution:
        """Return the next :class:`Convolution`, with a bias if it is not normalized.

        Args:
            in_channels (int): Channels of its input.
            out_channels (int): Channels of its output.
            ksize (int): Side of the filters.
            relu (bool): Whether ReLU follows.
            **options: As :class:`chainer.links.Convolution2D` takes them.
        """
        norm = self._normalization.norm(out_channels, self._index, self._total)
        self._index += 1
        conv = self._normalization.conv(
            in_channels,
            out_channels,
            ksize,
            nobias=norm is not None,
            initialW=self._initialW,
            **options,
        )
        return Convolution(conv, norm, relu)

    def linear(self, in_size: int, out_size: int) -> chainer.Link:
        """Return a fully connected layer."""
        return self._normalization.linear(in_size, out_size, initialW=self._initialW)


class Blocks(chainer.ChainList):
    """Links in sequence.

    Args:
        *links: The links.
        recomputed (bool): Whether each keeps only its input for the backward pass
            (:func:`~chainer_crossbn.functions.recompute`).
    """

    def __init__(self, *links: chainer.Link, recomputed: bool = False) -> None:
        super().__init__(*links)
        self._recomputed = recomputed

    def forward(self, x):
        for block in self:
            x = recompute(block, x) if self._recomputed else block(x)
        return x


class FullyConnected(chainer.Chain):
    """Base of networks that end in three fully connected layers.

    ReLU and dropout follow the first two. None is normalized.

    Args:
        make (Maker): Makes the layers.
        in_size (int): Units of the input.
        fc_units (int): Units of each of the first two layers.
        n_class (int): Units of the last layer.
        dropout (float): Dropout ratio.
        dropout_function (callable): Takes a Variable and the ratio.
    """

    def __init__(
        self,
        make: Maker,
        in_size: int,
        fc_units: int,
        n_class: int,
        dropout: float,
        dropout_function: Callable[[chainer.Variable, float], chainer.Variable],
    ) -> None:
        super().__init__()
        self._dropout_ratio = dropout
        self._dropout = dropout_function
        with self.init_scope():
            self.fc6 = make.linear(in_size, fc_units)
            self.fc7 = make.linear(fc_units, fc_units)
            self.fc8 = make.linear(fc_units, n_class)

    def classify(self, x: chainer.Variable) -> chainer.Variable:
        """Return the logits of maps of shape (N, ...), as shape (N, n_class)."""
        for fc in (self.fc6, self.fc7):
            x = self._dropout(F.relu(fc(x)), self._dropout_ratio)
        return self.fc8(x)


def scaled(channels: int, width: int, full: int, multiple: int = 1) -> int:
    """Return the channels of a layer in a network of another width.

    Args:
        channels (int): Channels of the layer in the full network.
        width (int): Width of the network.
        full (int): Width of the full network.
        multiple (int): A divisor of the result, which is at least this.
    """
    return multiple * max(1, round(channels * width / full / multiple))


def local_response_normalization(
    x: chainer.Variable, layer: Convolution
) -> chainer.Variable:
    """Normalize over 5 neighbouring channels if the layer has no other normalization.

    Krizhevsky, Sutskever and Hinton (2012), section 3.3.

    Args:
        x (Variable): Output of the layer, shape (N, C, H, W).
        layer (Convolution): The layer.
    """
    if layer.norm is not None:
        return x
    return F.local_response_normalization(x, n=5, k=2, alpha=1e-4, beta=0.75)
