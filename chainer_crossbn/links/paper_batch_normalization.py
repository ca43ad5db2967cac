"""Cross-GPU batch normalization as the paper writes it.

Yashima, Ohyama and Matsuoka, "The relation between computing time and accuracy when
using Batch Normalization in deep learning": each GPU takes the mean and the mean of
squares of its mini-batch, an All Reduce averages them, and the variance is the
difference of the averaged squares and the squared average.
"""

import chainer.functions as F
import numpy
from chainer import backend, function_node

from chainer_crossbn import kernels
from chainer_crossbn.collectives import sum_over_ranks
from chainer_crossbn.functions._layout import Layout
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


def _average_over_ranks(comm, n_allreduces, vectors, name):
    """Average vectors of equal dtype over the processes, in one or more all-reduces."""
    xp = backend.get_array_module(*vectors)
    dtype = vectors[0].dtype
    parts = [xp.concatenate(vectors)] if n_allreduces == 1 else vectors
    averages = [
        sum_over_ranks(comm, part.astype(numpy.float64), f"{name} {i} of {len(parts)}")
        / comm.size
        for i, part in enumerate(parts, 1)
    ]
    return xp.concatenate(averages).astype(dtype).reshape(len(vectors), -1)


def _over_rows_of_ranks(function, v, ranks):
    """Apply a reduction over rows and positions to the rows of each rank.

    Args:
        function (callable): Such as :func:`numpy.mean`.
        v: Array of shape (n, c, s).
        ranks (Groups): The virtual ranks, each a group of its own.

    Returns:
        Array of shape (virtual ranks, c).
    """
    starts = ranks.starts(len(v)).tolist()
    xp = backend.get_array_module(v)
    return xp.stack([function(v[i:j], axis=(0, 2)) for i, j in zip(starts, starts[1:])])


class _Function(CrossBatchNormalizationFunction):
    def __init__(self, n_allreduces, averages_gradients, **options):
        super().__init__(**options)
        self._n_allreduces = n_allreduces
        self.averages_gradients = averages_gradients

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, gamma, beta = inputs
        xp = backend.get_array_module(x)
        self._layout = Layout(x.ndim, gamma.ndim, self._axis)
        self._groups = self._groups_of(x)
        n_ranks, self._group_size = self._virtual
        self.ranks = kernels.Groups(len(x), n_ranks)
        self._dtype = numpy.promote_types(gamma.dtype, numpy.float32)
        flat = self._layout.flatten(x).astype(self._dtype, copy=False)
        of_ranks = numpy.diff(self.ranks.starts(len(flat))) * flat.shape[2]
        self.local_counts = xp.asarray(of_ranks, numpy.float64)[:, None]
        self._count, self._mean, var = self.global_statistics(flat)
        self._inv_std = 1 / xp.sqrt(var + self._dtype.type(self._eps))
        self._update_running(var)
        y = self.centred(flat)
        y *= gamma.reshape(-1, 1)
        y += beta.reshape(-1, 1)
        return (self._layout.restore(y.astype(x.dtype, copy=False), x.shape),)

    def centred(self, flat):
        mean = per_row(self._mean, flat, self._groups)
        return (flat - mean) * per_row(self._inv_std, flat, self._groups)

    def average(self, of_ranks, direction):
        """Average arrays of shape (virtual ranks, m) over the ranks of each group.

        Returns:
            Array of shape (arrays, groups, m).
        """
        vectors = [
            v.reshape(self._groups.count, self._group_size, -1).mean(axis=1).ravel()
            for v in of_ranks
        ]
        averages = _average_over_ranks(
            self._comm, self._n_allreduces, vectors, f"{self.layer} {direction}"
        )
        return averages.reshape(len(vectors), self._groups.count, -1)

    def global_statistics(self, flat):
        """Return count, mean and variance, which are the averages of all ranks'."""
        xp = backend.get_array_module(flat)
        moments = (
            _over_rows_of_ranks(xp.mean, v, self.ranks) for v in (flat, flat * flat)
        )
        # The count goes with them, so that running variances are equal on all ranks.
        with_count = [xp.append(v, self.local_counts, axis=1) for v in moments]
        averages = self.average(with_count, "forward")
        mean, square = averages[..., :-1].astype(self._dtype).reshape(2, -1)
        counts = averages[0, :, -1] * (self._group_size * self._comm.size)
        count = xp.repeat(counts, flat.shape[1])
        return count, mean, square - mean * mean

    def _update_running(self, var):
        unbiased = (var * correction(self._count)).astype(var.dtype)
        for running, fresh in zip(self._running, (self._mean, unbiased)):
            if running is not None:
                kernels.of(running).update_running(
                    running, fresh.reshape(running.shape), self._decay
                )

    def backward(self, indexes, grad_outputs):
        x, gamma = self.get_retained_inputs()
        return _Gradient(self).apply((x, gamma, grad_outputs[0]))


class _Gradient(function_node.FunctionNode):
    def __init__(self, function):
        self._function = function

    def forward(self, inputs):
        x, gamma, gy = inputs
        f = self._function
        xp = backend.get_array_module(x)
        flat = f._layout.flatten(x).astype(f._dtype, copy=False)
        flat_gy = f._layout.flatten_as(gy, flat).astype(f._dtype, copy=False)
        x_hat = f.centred(flat)
        gbetas, ggammas = (
            _over_rows_of_ranks(xp.sum, v, f.ranks) for v in (flat_gy, flat_gy * x_hat)
        )
        counts = f.local_counts.astype(f._dtype)
        means = [gbetas / counts, ggammas / counts]
        groups = f.ranks
        if f.averages_gradients:
            means, groups = f.average(means, "backward"), f._groups
        mean_gy, mean_gy_x_hat = (per_row(v, flat, groups) for v in means)
        gx = flat_gy - mean_gy - x_hat * mean_gy_x_hat
        gx *= gamma.reshape(-1, 1) * per_row(f._inv_std, flat, f._groups)
        return (
            f._layout.restore(gx.astype(x.dtype, copy=False), x.shape),
            ggammas.sum(axis=0).reshape(gamma.shape).astype(gamma.dtype, copy=False),
            gbetas.sum(axis=0).reshape(gamma.shape).astype(gamma.dtype, copy=False),
        )

    def backward(self, indexes, grad_outputs):
        raise RuntimeError(
            "PaperBatchNormalization has no second derivatives; "
            "CrossBatchNormalization has"
        )
