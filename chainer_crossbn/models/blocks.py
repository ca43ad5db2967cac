"""What the networks are made of."""

import chainer
import chainer.functions as F

from chainer_crossbn.functions.recompute import recompute
from chainer_crossbn.links.cross_batch_normalization import CrossBatchNormalization


class Convolution(chainer.Chain):
    """A convolution, its normalization (or none) and ReLU (or none)."""

    def __init__(self, conv, norm, relu=True):
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

    def start_at_zero(self):
        """Let the normalization's scale start at 0, where there is one."""
        gamma = getattr(self.norm, "gamma", None)
        if gamma is None:
            return
        if gamma.array is None:
            gamma.initializer = chainer.initializers.Constant(0)
        else:
            gamma.array[...] = 0


class Maker:
    """Makes the convolutions of a network, which must come in forward order.

    Args:
        normalization: Normalization object (:mod:`.normalizations`).
        total (int): How many normalizations the network has.
        initialW: Initializer of all weights; Chainer's LeCunNormal by default.
    """

    def __init__(self, normalization, total, initialW=None):
        self._normalization = normalization
        self._total = total
        self._initialW = initialW
        self._index = 0

    def conv(self, in_channels, out_channels, ksize, relu=True, **options):
        """Return the next :class:`Convolution`, with a bias where it is not normalized.

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

    def linear(self, in_size, out_size):
        """Return a fully connected layer."""
        return self._normalization.linear(in_size, out_size, initialW=self._initialW)


class Blocks(chainer.ChainList):
    """Links one after the other.

    Args:
        *links: The links.
        recomputed (bool): Whether each keeps nothing but its input for the backward
            pass (:func:`~chainer_crossbn.functions.recompute`).
    """

    def __init__(self, *links, recomputed=False):
        super().__init__(*links)
        self._recomputed = recomputed

    def forward(self, x):
        for block in self:
            x = recompute(block, x) if self._recomputed else block(x)
        return x


def scaled(channels, width, full, multiple=1):
    """Return the channels of a layer in a network of another width.

    Args:
        channels (int): Of the layer in the full network.
        width (int): Of the network.
        full (int): Width of the full network.
        multiple (int): What the result is a multiple of, at least once.
    """
    return multiple * max(1, round(channels * width / full / multiple))


def local_response_normalization(x, layer):
    """Normalize over 5 neighbouring channels, where a layer has no other normalization.

    Krizhevsky, Sutskever and Hinton (2012), section 3.3.

    Args:
        x (Variable): Output of the layer, shape (N, C, H, W).
        layer (Convolution): The layer.
    """
    if layer.norm is not None:
        return x
    return F.local_response_normalization(x, n=5, k=2, alpha=1e-4, beta=0.75)
