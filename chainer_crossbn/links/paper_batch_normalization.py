"""Cross-GPU batch normalization as the paper writes it.

Yashima, Ohyama and Matsuoka, "The relation between computing time and accuracy when
using Batch Normalization in deep learning": each GPU takes the mean and the mean of
squares of its mini-batch, an All Reduce averages them, and the variance is the
difference of the averaged squares and the squared average.
"""

from typing import NamedTuple

import chainer.functions as F
import numpy
from chainer import backend, function_node
from chainermn.communicators.communicator_base import CommunicatorBase

from chainer_crossbn import kernels
from chainer_crossbn.collectives import sum_over_ranks
from chainer_crossbn.functions import _statistics
from chainer_crossbn.functions._layout import layout_of
from chainer_crossbn.functions.cross_batch_normalization import (
    CrossBatchNormalizationFunction,
)
from chainer_crossbn.kernels.normalization.array_api import correction, per_row
from chainer_crossbn.links.cross_batch_normalization import CrossBatchNormalization


class PaperBatchNormalization(CrossBatchNormalization):
    """Batch normalization link that takes its statistics over all ranks, as written.

    Arithmetic is float32 (float64 where the parameters are), and so are the averages,
    which travel as float64. With local batches of equal size it computes the same as
    :class:`~chainer_crossbn.CrossBatchNormalization`, to the rounding of float32 and to
    the cancellation in mean of squares less squared mean; the variance is not clipped.
    With unequal ones the averages are not those of the global batch. It has no second
    derivatives.

    The paper does not say how many All Reduces it makes, nor what its backward pass
    does; both are arguments here.

    Args:
        size: As :class:`~chainer_crossbn.CrossBatchNormalization`, and so the others.
        comm: ChainerMN communicator.
        n_allreduces (int): 2 to average mean and mean of squares one after the other,
            1 to average both at once; so too in an exact backward pass.
        backward (str): ``"exact"`` averages the two sums of the gradient over the
            ranks, too. ``"local"`` takes those of this rank alone and communicates
            nothing: the backward pass of ordinary batch normalization around
            statistics that happen to be global.

    Raises:
        ValueError: If ``n_allreduces`` or ``backward`` is none of these.
    """

    def __init__(self, size, comm, n_allreduces=2, backward="exact", **kwargs):
        super().__init__(size, comm, **kwargs)
        if n_allreduces not in (1, 2):
            raise ValueError(f"n_allreduces is 1 or 2, not {n_allreduces!r}")
        if backward not in ("exact", "local"):
            raise ValueError(f"backward is 'exact' or 'local', not {backward!r}")
        self.n_allreduces = n_allreduces
        self.backward = backward

    def _normalize(self, x, gamma, beta, comm, relu, **options):
        averages_gradients = self.backward == "exact"
        node = _Function(self.n_allreduces, averages_gradients, comm=comm, **options)
        (y,) = node.apply((x, gamma, beta))
        return F.relu(y) if relu else y


class _Function(CrossBatchNormalizationFunction):
    def __init__(self, n_allreduces, averages_gradients, **options):
        super().__init__(**options)
        self._n_allreduces = n_allreduces
        self._averages_gradients = averages_gradients

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, gamma, beta = inputs
        self._layout = layout_of(x.ndim, gamma.ndim, self._axis)
        n_ranks, group_size = self._virtual
        self._ranks = _Ranks(
            comm=self._comm,
            groups=self._groups_of(x),
            ranks=kernels.Groups(len(x), n_ranks),
            group_size=group_size,
            n_allreduces=self._n_allreduces,
        )
        dtype = numpy.promote_types(gamma.dtype, numpy.float32)
        flat = self._layout.flatten(x).astype(dtype, copy=False)
        statistics = _statistics.get(self.layer, lambda: self._global_statistics(flat))
        self._mean = statistics.mean
        xp = backend.get_array_module(x)
        self._inv_std = 1 / xp.sqrt(statistics.spread + dtype.type(self._eps))
        self._update_running(statistics)
        y = _centred(flat, self._mean, self._inv_std, self._ranks.groups)
        y *= gamma.reshape(-1, 1)
        y += beta.reshape(-1, 1)
        return (self._layout.restore(y.astype(x.dtype, copy=False), x.shape),)

    def _global_statistics(self, flat):
        """Return count, mean and variance, which are the averages of all ranks'."""
        xp = backend.get_array_module(flat)
        ranks = self._ranks
        local_counts = ranks.local_counts(flat)
        moments = (ranks.reduce(xp.mean, v) for v in (flat, flat * flat))
        # The count goes with them, so that running variances are equal on all ranks.
        with_count = [xp.append(v, local_counts, axis=1) for v in moments]
        averages = ranks.average(with_count, f"{self.layer} forward")
        mean, square = averages[..., :-1].astype(flat.dtype).reshape(2, -1)
        counts = averages[0, :, -1] * (ranks.group_size * self._comm.size)
        count = xp.repeat(counts, flat.shape[1])
        return _statistics.Statistics(count, mean, square - mean * mean)

    def _update_running(self, statistics):
        count, mean, var = statistics
        unbiased = (var * correction(count)).astype(var.dtype)
        for running, fresh in zip(self._running, (mean, unbiased)):
            if running is not None:
                kernels.of(running).update_running(
                    running, fresh.reshape(running.shape), self._decay
                )

    def backward(self, indexes, grad_outputs):
        x, gamma = self.get_retained_inputs()
        node = _Gradient(
            layout=self._layout,
            ranks=self._ranks,
            mean=self._mean,
            inv_std=self._inv_std,
            averaged_as=f"{self.layer} backward" if self._averages_gradients else None,
        )
        return node.apply((x, gamma, grad_outputs[0]))


class _Ranks(NamedTuple):
    """The ranks whose mini-batches are averaged.

    Attributes:
        comm: ChainerMN communicator.
        groups (Groups): Virtual ranks of this process that share statistics.
        ranks (Groups): The virtual ranks, each a group of its own.
        group_size (int): Virtual ranks of a group.
        n_allreduces (int): 1 or 2, for two vectors.
    """

    comm: CommunicatorBase
    groups: kernels.Groups
    ranks: kernels.Groups
    group_size: int
    n_allreduces: int

    def local_counts(self, v):
        """Return the elements of a channel of each rank, float64 of shape (ranks, 1).

        Args:
            v: Array of shape (n, c, s).
        """
        counts = numpy.diff(self.ranks.starts(len(v))) * v.shape[2]
        return backend.get_array_module(v).asarray(counts, numpy.float64)[:, None]

    def reduce(self, function, v):
        """Apply a reduction over rows and positions to the rows of each rank.

        Args:
            function (callable): Such as :func:`numpy.mean`.
            v: Array of shape (n, c, s).

        Returns:
            Array of shape (virtual ranks, c).
        """
        starts = self.ranks.starts(len(v)).tolist()
        xp = backend.get_array_module(v)
        return xp.stack(
            [function(v[i:j], axis=(0, 2)) for i, j in zip(starts, starts[1:])]
        )

    def average(self, of_ranks, name):
        """Average arrays of shape (virtual ranks, m) over the ranks of each group.

        Args:
            of_ranks (list): The arrays, of equal dtype.
            name (str): Names the layer and the direction, equal on all ranks.

        Returns:
            Array of shape (arrays, groups, m).
        """
        vectors = [
            v.reshape(self.groups.count, self.group_size, -1).mean(axis=1).ravel()
            for v in of_ranks
        ]
        xp = backend.get_array_module(*vectors)
        parts = [xp.concatenate(vectors)] if self.n_allreduces == 1 else vectors
        averages = [
            sum_over_ranks(
                self.comm, part.astype(numpy.float64), f"{name} {i} of {len(parts)}"
            )
            / self.comm.size
            for i, part in enumerate(parts, 1)
        ]
        averages = xp.concatenate(averages).astype(vectors[0].dtype)
        return averages.reshape(len(vectors), self.groups.count, -1)


def _centred(x, mean, inv_std, groups):
    return (x - per_row(mean, x, groups)) * per_row(inv_std, x, groups)


class _Gradient(function_node.FunctionNode):
    """Gradients of the input, gamma and beta.

    Args:
        layout (Layout): Of the input.
        ranks (_Ranks): The ranks whose mini-batches were averaged.
        mean: Array of shape (groups * c,).
        inv_std: Likewise.
        averaged_as (str or None): Name under which the sums of the gradient are
            averaged over the ranks; ``None`` to take those of each rank alone.
    """

    def __init__(self, layout, ranks, mean, inv_std, averaged_as):
        self._layout = layout
        self._ranks = ranks
        self._mean = mean
        self._inv_std = inv_std
        self._averaged_as = averaged_as

    def forward(self, inputs):
        x, gamma, gy = inputs
        xp = backend.get_array_module(x)
        ranks, dtype = self._ranks, self._mean.dtype
        flat = self._layout.flatten(x).astype(dtype, copy=False)
        flat_gy = self._layout.flatten_as(gy, flat).astype(dtype, copy=False)
        x_hat = _centred(flat, self._mean, self._inv_std, ranks.groups)
        gbetas, ggammas = (ranks.reduce(xp.sum, v) for v in (flat_gy, flat_gy * x_hat))
        counts = ranks.local_counts(flat).astype(dtype)
        means, groups = [gbetas / counts, ggammas / counts], ranks.ranks
        if self._averaged_as is not None:
            means, groups = ranks.average(means, self._averaged_as), ranks.groups
        mean_gy, mean_gy_x_hat = (per_row(v, flat, groups) for v in means)
        gx = flat_gy - mean_gy - x_hat * mean_gy_x_hat
        gx *= gamma.reshape(-1, 1) * per_row(self._inv_std, flat, ranks.groups)
        return (
            self._layout.restore(gx.astype(x.dtype, copy=False), x.shape),
            ggammas.sum(axis=0).reshape(gamma.shape).astype(gamma.dtype, copy=False),
            gbetas.sum(axis=0).reshape(gamma.shape).astype(gamma.dtype, copy=False),
        )

    def backward(self, indexes, grad_outputs):
        raise RuntimeError(
            "PaperBatchNormalization has no second derivatives; "
            "CrossBatchNormalization has"
        )
