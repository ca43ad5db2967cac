"""From the name of a normalization (``--bn``) to the object that models build with.

Models ask the object for every convolution, linear layer and normalization and know
nothing else, so that one network can be compared under all normalizations.
"""

import inspect
import warnings

import chainer
import chainer.links as L
from chainermn.links import MultiNodeBatchNormalization

from chainer_crossbn.links import (
    LayerNormalization,
    PaperBatchNormalization,
    WeightNormalization,
)
from chainer_crossbn.links.convolution_2d import Convolution2D
from chainer_crossbn.links.cross_batch_normalization import CrossBatchNormalization
from chainer_crossbn.links.linear import Linear


class Normalization:
    """No normalization (noBN), and the interface of the others."""

    def conv(self, in_channels, out_channels, ksize, **kwargs):
        """Return a convolution; arguments as :class:`chainer.links.Convolution2D`."""
        return Convolution2D(in_channels, out_channels, ksize, **kwargs)

    def linear(self, in_size, out_size, **kwargs):
        """Return a linear link; arguments as :class:`chainer.links.Linear`."""
        return Linear(in_size, out_size, **kwargs)

    def norm(self, channels, index, total):
        """Return the link that normalizes one layer, or ``None`` for none.

        Args:
            channels (int): Channels of the layer.
            index (int): Which of the model's normalizations it is, 0 first.
            total (int): How many normalizations the model has.
        """
        return None

    def prepare(self, model, x):
        """Make a new model ready to train; all ranks call it together.

        Args:
            model (chainer.Link): What was built with this object.
            x (array): This rank's images to look at, shape (N, 3, H, W).
        """


class CrossNormalization(Normalization):
    """Batch normalization with the statistics of a communicator's ranks.

    Args:
        comm: ChainerMN communicator.
        link: Class of the links, :class:`CrossBatchNormalization` or its comparator.
        options: Further arguments of the links.
    """

    def __init__(self, comm, link=CrossBatchNormalization, **options):
        self._comm = comm
        self._link = link
        self._options = options

    def norm(self, channels, index, total):
        label = f"normalization {index + 1} of {total} ({channels} channels)"
        return self._link(channels, self._comm, label=label, **self._options)


class _HookableMultiNodeBatchNormalization(MultiNodeBatchNormalization):
    """ChainerMN's link, which computes where Chainer calls the hooks of a link."""

    __call__ = chainer.Link.__call__

    def forward(self, x):
        if not chainer.config.in_recomputing:
            return MultiNodeBatchNormalization.__call__(self, x)
        running = self.avg_mean.copy(), self.avg_var.copy()
        y = MultiNodeBatchNormalization.__call__(self, x)
        self.avg_mean[...], self.avg_var[...] = running
        return y


class ChainerMNNormalization(Normalization):
    """ChainerMN's link, with the statistics of a communicator's ranks."""

    def __init__(self, comm):
        self._comm = comm

    def norm(self, channels, index, total):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is experimental", FutureWarning)
            return _HookableMultiNodeBatchNormalization(channels, self._comm)


class ChainerNormalization(Normalization):
    """Chainer's own link, with the statistics of each rank for itself."""

    def norm(self, channels, index, total):
        return L.BatchNormalization(channels)


class PerImageNormalization(Normalization):
    """Layer normalization: statistics of all units of one image."""

    def norm(self, channels, index, total):
        return LayerNormalization()

    def prepare(self, model, x):
        # The number of units is known once an image has come by.
        _look_at(model, x[:1])


class GroupNormalization(Normalization):
    """Group normalization (Wu & He, 2018): statistics of some channels of one image.

    Args:
        groups (int): Groups of a layer, or the most below that divide its channels.
    """

    def __init__(self, groups):
        self._groups = groups

    def norm(self, channels, index, total):
        groups = min(self._groups, channels)
        while channels % groups:
            groups -= 1
        return L.GroupNormalization(groups, channels)


class WeightNormalizer(Normalization):
    """Weight normalization of convolutions and linear links, in place of layers.

    Args:
        comm: ChainerMN communicator, to initialize by a mini-batch of all its ranks, or
            ``None`` to start from the lengths of the initial weights.
    """

    def __init__(self, comm):
        self._comm = comm

    def conv(self, *args, **kwargs):
        return super().conv(*args, **kwargs).add_hook(WeightNormalization())

    def linear(self, *args, **kwargs):
        return super().linear(*args, **kwargs).add_hook(WeightNormalization())

    def prepare(self, model, x):
        if self._comm is None:
            return
        for path, link in model.namedlinks():
            for hook in link.local_link_hooks.values():
                if isinstance(hook, WeightNormalization):
                    hook.initialize_from_next_batch(self._comm, path)
        _look_at(model, x)


class SomeLayers(Normalization):
    """One normalization in the first or the last layers, another in the rest.

    Args:
        chosen (Normalization): Builds everything else as well.
        rest (Normalization): For the other layers.
        end (str): ``"front"`` or ``"back"``.
        count (int): How many normalizations, in forward order, are the chosen one.
    """

    def __init__(self, chosen, rest, end, count):
        self._chosen = chosen
        self._rest = rest
        self._end = end
        self._count = count

    def conv(self, *args, **kwargs):
        return self._chosen.conv(*args, **kwargs)

    def linear(self, *args, **kwargs):
        return self._chosen.linear(*args, **kwargs)

    def norm(self, channels, index, total):
        place = index if self._end == "front" else total - 1 - index
        kind = self._chosen if place < self._count else self._rest
        return kind.norm(channels, index, total)

    def prepare(self, model, x):
        self._chosen.prepare(model, x)


def _look_at(model, x):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        model(x)


def _none(comm, virtual_ranks):
    return Normalization()


def _normal(comm, virtual_ranks):
    comm, options = _group_of(comm, virtual_ranks, 1)
    return CrossNormalization(comm, **options)


def _multigpu(comm, virtual_ranks, bn_group_size=None):
    comm, options = _group_of(comm, virtual_ranks, bn_group_size)
    return CrossNormalization(comm, **options)


def _paper(
    comm, virtual_ranks, bn_group_size=None, paper_allreduces=2, paper_backward="exact"
):
    comm, options = _group_of(comm, virtual_ranks, bn_group_size)
    return CrossNormalization(
        comm,
        PaperBatchNormalization,
        n_allreduces=paper_allreduces,
        backward=paper_backward,
        **options,
    )


def _chainermn(comm, virtual_ranks, bn_group_size=None):
    return ChainerMNNormalization(_group_of(comm, virtual_ranks, bn_group_size)[0])


def _chainer(comm, virtual_ranks):
    return ChainerNormalization()


def _layer(comm, virtual_ranks):
    return PerImageNormalization()


def _group(comm, virtual_ranks, groups=32):
    return GroupNormalization(groups)


def _weight(comm, virtual_ranks, weight_norm_init="norm"):
    return WeightNormalizer(comm if weight_norm_init == "data" else None)


def _group_of(comm, virtual_ranks, size):
    """Return the communicator of a group of ranks, and the options of its links.

    Args:
        comm: ChainerMN communicator of all processes.
        virtual_ranks (int): Ranks per process.
        size (int or None): Consecutive ranks that share statistics; all by default.
            Divides ``virtual_ranks`` or is a multiple of it.
    """
    if size is not None and size < comm.size * virtual_ranks:
        processes = max(1, size // virtual_ranks)
        comm = comm.split(comm.rank // processes, comm.rank)
        own = min(size, virtual_ranks)
    else:
        own = virtual_ranks
    return comm, {"virtual_ranks": virtual_ranks, "virtual_group_size": own}


_FACTORIES = {
    "none": _none,
    "normal": _normal,
    "multigpu": _multigpu,
    "paper": _paper,
    "chainermn": _chainermn,
    "chainer": _chainer,
    "layer": _layer,
    "group": _group,
    "weight": _weight,
}

NAMES = tuple(_FACTORIES)

# Option -> default, for the names that take it.
OPTIONS = {
    name: {
        option: parameter.default
        for option, parameter in inspect.signature(factory).parameters.items()
        if option not in ("comm", "virtual_ranks")
    }
    for name, factory in _FACTORIES.items()
}

# Those whose links compute for one rank per process.
WITHOUT_VIRTUAL_RANKS = ("chainermn", "chainer")

# Those that normalize layers, of which some can be chosen.
OF_LAYERS = tuple(name for name in NAMES if name not in ("none", "weight"))


def create(name, comm, layers=None, rest="normal", virtual_ranks=1, **options):
    """Create the normalization object of a name.

    All processes of ``comm`` must call it together.

    Args:
        name (str): ``none`` (noBN); ``normal`` (normalBN: this package's link over a
            group of one rank); ``multigpu`` (multigpuBN: the same over all ranks);
            ``paper`` (multigpuBN as the paper writes it); ``chainermn`` (ChainerMN's
            ``MultiNodeBatchNormalization``); ``chainer``
            (:class:`chainer.links.BatchNormalization`); ``layer``, ``group`` and
            ``weight`` normalization.
        comm: ChainerMN communicator.
        layers (tuple or None): ``("front", K)`` or ``("back", K)``: only the first or
            last K normalizations of the model are of this name; ``None``: all are.
        rest (str): What the others are: ``normal`` or ``none``.
        virtual_ranks (int): Ranks per process of ``comm``. ``chainermn`` and
            ``chainer`` can't tell them apart: they must have one.
        **options: Of the name, as :data:`OPTIONS` has them: ``bn_group_size``
            (consecutive ranks that share statistics; must divide their number),
            ``paper_allreduces``, ``paper_backward``, ``groups``, ``weight_norm_init``.

    Returns:
        Normalization: What models build with.

    Raises:
        KeyError: If there is no such name; :data:`NAMES` has all.
        TypeError: If the name does not take an option.
        ValueError: If the others are neither ``normal`` nor ``none``, or virtual ranks
            can't be told apart.
    """
    if rest not in ("normal", "none"):
        raise ValueError(f"the other layers are normal or none, not {rest}")
    if virtual_ranks > 1 and name in WITHOUT_VIRTUAL_RANKS:
        raise ValueError(f"{name} does not support virtual ranks")
    chosen = _FACTORIES[name](comm, virtual_ranks, **options)
    if layers is None:
        return chosen
    return SomeLayers(chosen, _FACTORIES[rest](comm, virtual_ranks), *layers)
