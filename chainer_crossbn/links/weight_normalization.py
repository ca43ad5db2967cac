"""Weight normalization of convolutions and linear links."""

import chainer
import chainer.functions as F
import numpy
from chainer import backend

from chainer_crossbn import kernels
from chainer_crossbn.collectives import merge_moments
from chainer_crossbn.functions._layout import Layout


class WeightNormalization(chainer.LinkHook):
    """Link hook that gives each output of a link the weights ``g * v / ||v||``.

    Salimans and Kingma, "Weight Normalization" (2016), equation 2: the direction ``v``
    of an output's weights and their length ``g`` are parameters of their own. ``v``
    takes the place of the parameter ``W``; ``g``, of shape (outputs,), is added to the
    link, and starts as ``||v||``, so that the link at first computes what it did.

    It is for links with a parameter ``W`` of shape (outputs, ...) that is initialized,
    and 0 for no output, such as :class:`chainer.links.Convolution2D` and
    :class:`chainer.links.Linear`; one hook serves one link::

        link = L.Linear(3, 4)
        link.add_hook(WeightNormalization())
    """

    name = "WeightNormalization"

    def __init__(self):
        self._pending = None

    def added(self, link):
        if link.W.array is None:
            raise ValueError("weight normalization needs the size of the inputs")
        lengths = _lengths(link.W).array
        with link.init_scope():
            link.g = chainer.Parameter(
                chainer.initializers.Constant(lengths), lengths.shape
            )

    def deleted(self, link):
        link.W.array[...] = _scaled(link.W, link.g).array
        del link.g

    def initialize_from_next_batch(self, comm, label="a link"):
        """Set ``g`` and the bias ``b`` by the next mini-batch, before it is computed.

        Equation 6 of the paper, with the mean and the variance over all positions and
        the mini-batches of all ranks: each output of the link (without activation)
        then has mean 0 and variance 1. One that is always the same keeps its length.
        The link must have a bias, or the next mini-batch raises ValueError.

        Args:
            comm: ChainerMN communicator; all ranks must compute the next mini-batch.
            label (str): Names the link in the check that all ranks reach the links in
                the same order; must be equal on all ranks.
        """
        self._pending = comm, f"{label} initialization"

    def forward_preprocess(self, args):
        link = args.link
        if hasattr(link, "v"):  # an error kept the last call from its end
            self.forward_postprocess(args)
        if self._pending is not None:
            self._initialize(link, args.args[0], *self._pending)
            self._pending = None
        link.v = link.W
        link.W = _scaled(link.v, link.g)

    def forward_postprocess(self, args):
        args.link.W = args.link.v
        del args.link.v

    def _initialize(self, link, x, comm, layer):
        if link.b is None:
            raise ValueError("initialization by a mini-batch needs a link with a bias")
        lengths = _lengths(link.W).array
        v = link.W
        link.b.array[...] = 0
        with chainer.no_backprop_mode():
            link.W = _scaled(v, link.xp.ones_like(lengths))
            try:
                t = link.forward(x).array
            finally:
                link.W = v
        flat = Layout(t.ndim, 1, None).flatten(t)
        local_count = flat.shape[0] * flat.shape[2]
        count, mean, m2 = merge_moments(
            comm, local_count, *kernels.of(flat).moments(flat), layer
        )
        xp = backend.get_array_module(t)
        std = xp.sqrt(m2 / count)
        # What rounding makes of outputs that are all the same is no variation.
        same = std <= 10 * numpy.finfo(t.dtype).eps * abs(mean)
        inv_std = 1 / xp.where(same, 1, std)
        link.g.array[...] = xp.where(same, lengths, inv_std)
        link.b.array[...] = xp.where(same, 0, -mean * inv_std)


def _lengths(v):
    return F.sqrt(F.sum(v * v, axis=tuple(range(1, v.ndim))))


def _scaled(v, g):
    scale = F.reshape(g / _lengths(v), (-1,) + (1,) * (v.ndim - 1))
    return v * F.broadcast_to(scale, v.shape)
