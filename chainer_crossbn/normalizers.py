"""From the name of a normalization (``--bn``) to the object that models build with.

Models ask the object for every convolution, linear layer and normalization and know
nothing else, so that one network can be compared under all normalizations.
"""

import chainer.links as L

from chainer_crossbn.batch_normalization import CrossBatchNormalization


class Normalization:
    """No normalization (noBN), and the interface of the others."""

    def conv(self, in_channels, out_channels, ksize, **kwargs):
        """Return a convolution; arguments as :class:`chainer.links.Convolution2D`."""
        return L.Convolution2D(in_channels, out_channels, ksize, **kwargs)

    def linear(self, in_size, out_size, **kwargs):
        """Return a linear link; arguments as :class:`chainer.links.Linear`."""
        return L.Linear(in_size, out_size, **kwargs)

    def norm(self, channels, index, total):
        """Return the link that normalizes one layer, or ``None`` for none.

        Args:
            channels (int): Channels of the layer.
            index (int): Which of the model's normalizations it is, 0 first.
            total (int): How many normalizations the model has.
        """
        return None


class CrossNormalization(Normalization):
    """Batch normalization with the statistics of a communicator's ranks."""

    def __init__(self, comm):
        self._comm = comm

    def norm(self, channels, index, total):
        link = CrossBatchNormalization(channels, self._comm)
        link.label = f"normalization {index + 1} of {total} ({channels} channels)"
        return link


class ChainerNormalization(Normalization):
    """Chainer's own link, with the statistics of each rank for itself."""

    def norm(self, channels, index, total):
        return L.BatchNormalization(channels)


def _of_one_rank(comm):
    return comm.split(comm.rank, 0)


_FACTORIES = {
    "none": lambda comm: Normalization(),
    "normal": lambda comm: CrossNormalization(_of_one_rank(comm)),
    "multigpu": CrossNormalization,
    "chainer": lambda comm: ChainerNormalization(),
}

NAMES = tuple(_FACTORIES)


def create(name, comm):
    """Create the normalization object of a name.

    All ranks of ``comm`` must call it together.

    Args:
        name (str): ``none`` (noBN); ``normal`` (normalBN: this package's link over a
            group of one rank); ``multigpu`` (multigpuBN: the same over all ranks);
            ``chainer`` (:class:`chainer.links.BatchNormalization`).
        comm: ChainerMN communicator.

    Returns:
        Normalization: What models build with.

    Raises:
        KeyError: If there is no such name; :data:`NAMES` has all.
    """
    return _FACTORIES[name](comm)
