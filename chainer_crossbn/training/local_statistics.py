"""Compare the statistics of a rank's mini-batch with those of the global batch.

The paper explains with their difference why normalBN fails with few images per GPU.
"""

import chainer
import numpy
from chainer import backend

from chainer_crossbn import kernels
from chainer_crossbn.functions._layout import layout_of
from chainer_crossbn.links.cross_batch_normalization import CrossBatchNormalization


def deviations(model: chainer.Link, x, comm, virtual_ranks: int = 1) -> list[dict]:
    """Compare local with global mean and variance of each layer in a training pass.

    All ranks must call it together. Running statistics change as in any training pass.

    Args:
        model (chainer.Link): Normalized by :class:`CrossBatchNormalization` links.
        x (array): This process's mini-batch, shape (n, 3, h, w), n equal everywhere.
        comm: ChainerMN communicator of all ranks; links may have another.
        virtual_ranks (int): Number of ranks whose mini-batches ``x`` holds; divides n.

    Returns:
        list of dict: One per normalization, in the order of the forward pass: ``layer``
        (its label, or its path in the model if it has none), ``values`` (per channel on
        this rank), and, as means over channels and ranks, ``mean``, the distance
        between local and global mean over the global standard deviation, and
        ``variance``, the distance between the variances over the global variance. As in
        the normalization, eps is added to the variances.
    """
    hook = _LocalMoments(virtual_ranks)
    with chainer.no_backprop_mode(), hook:
        model(x)
    paths = {id(link): path for path, link in model.namedlinks()}
    layers = []
    for link, n, mean, var in hook.moments:
        means, variances = (
            numpy.concatenate(comm.allreduce_obj([v])) for v in (mean, var)
        )
        global_mean = means.mean(axis=0)
        global_var = variances.mean(axis=0) + means.var(axis=0) + link.eps
        mean_distances = abs(means - global_mean) / global_var**0.5
        variance_distances = abs((variances + link.eps) / global_var - 1)
        layers.append(
            {
                "layer": link.label or paths[id(link)],
                "values": n,
                "mean": float(mean_distances.mean()),
                "variance": float(variance_distances.mean()),
            }
        )
    return layers


class _LocalMoments(chainer.LinkHook):
    """Collects the moments of the inputs of normalizations.

    Attributes:
        moments (list of tuple): Link, values per channel, and means and variances,
            both of shape (virtual ranks, c).
    """

    def __init__(self, virtual_ranks):
        self.moments = []
        self._virtual_ranks = virtual_ranks

    def forward_preprocess(self, args):
        link = args.link
        if not isinstance(link, CrossBatchNormalization):
            return
        x = backend.from_chx(args.args[0].array)
        channel_ndim = link.avg_mean.ndim - (link.n_groups > 1)
        flat = layout_of(x.ndim, channel_ndim, link.axis).flatten(x)
        groups = kernels.Groups(len(x), self._virtual_ranks)
        mean, m2 = (
            v.reshape(self._virtual_ranks, -1)
            for v in backend.CpuDevice().send(kernels.of(flat).moments(flat, groups))
        )
        n = flat.shape[0] * flat.shape[2] // self._virtual_ranks
        self.moments.append((link, n, mean, m2 / n))
