"""Cross-GPU batch normalization as the paper writes it.

Yashima, Ohyama and Matsuoka, "The relation between computing time and accuracy when
using Batch Normalization in deep learning": each GPU takes the mean and the mean of
squares of its mini-batch, an All Reduce averages them, and the variance is the
difference of the averaged squares and the squared average.
"""

import functools

import chainer.functions as F
import numpy
from chainer import backend, function_node

from chainer_crossbn import kernels
from chainer_crossbn.batch_normalization import (
    CrossBatchNormalization,
    CrossBatchNormalizationFunction,
)
from chainer_crossbn.collectives import sum_over_ranks
from chainer_crossbn.layout import Layout


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

    def _normalize(self, x, gamma, beta, comm, name, relu, **options):
        average = functools.partial(
            _average_over_ranks, comm, self.n_allreduces, name=name
        )
        node = _Function(comm=comm, name=name, **options)
        node.average = average
        node.average_gradient = average if self.backward == "exact" else _as_they_are
        (y,) = node.apply((x, gamma, beta))
        return F.relu(y) if relu else y


def _average_over_ranks(comm, n_allreduces, vectors, direction, name):
    """Average vectors of equal dtype over the ranks, in one or more all-reduces."""
    xp = backend.get_array_module(*vectors)
    dtype = vectors[0].dtype
    parts = [xp.concatenate(vectors)] if n_allreduces == 1 else vectors
    averages = [
        sum_over_ranks(
            comm, part.astype(numpy.float64), f"{name} {direction} {i} of {len(parts)}"
        )
        / comm.size
        for i, part in enumerate(parts, 1)
    ]
    return xp.concatenate(averages).astype(dtype).reshape(len(vectors), -1)


def _as_they_are(vectors, direction):
    return vectors


def _centred(flat, mean, inv_std):
    return (flat - mean[:, None]) * inv_std[:, None]


class _Function(CrossBatchNormalizationFunction):
    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, gamma, beta = inputs
        xp = backend.get_array_module(x)
        self._layout = Layout(x.ndim, gamma.ndim, self._axis)
        self._dtype = numpy.promote_types(gamma.dtype, numpy.float32)
        flat = self._layout.flatten(x).astype(self._dtype, copy=False)
        self._local_count = flat.shape[0] * flat.shape[2]
        self._count, self._mean, var = self.global_statistics(flat)
        self._inv_std = 1 / xp.sqrt(var + self._dtype.type(self._eps))
        self._update_running(var)
        y = _centred(flat, self._mean, self._inv_std)
        y *= gamma.reshape(-1, 1)
        y += beta.reshape(-1, 1)
        return (self._layout.restore(y.astype(x.dtype, copy=False), x.shape),)

    def global_statistics(self, flat):
        """Return count, mean and variance, which are the averages of all ranks'."""
        xp = backend.get_array_module(flat)
        mean = flat.mean(axis=(0, 2))
        square = (flat * flat).mean(axis=(0, 2))
        # The count goes with them, so that running variances are equal on all ranks.
        with_count = [xp.append(v, self._local_count) for v in (mean, square)]
        averages = self.average(with_count, "forward")
        mean, square = averages[:, :-1]
        count = float(averages[0, -1]) * self._comm.size
        return count, mean, square - mean * mean

    def _update_running(self, var):
        unbiased = var * (self._count / max(self._count - 1, 1))
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
        flat = f._layout.flatten(x).astype(f._dtype, copy=False)
        flat_gy = f._layout.flatten_as(gy, flat).astype(f._dtype, copy=False)
        x_hat = _centred(flat, f._mean, f._inv_std)
        gbeta = flat_gy.sum(axis=(0, 2))
        ggamma = (flat_gy * x_hat).sum(axis=(0, 2))
        mean_gy, mean_gy_x_hat = f.average_gradient(
            [gbeta / f._local_count, ggamma / f._local_count], "backward"
        )
        gx = flat_gy - mean_gy[:, None] - x_hat * mean_gy_x_hat[:, None]
        gx *= (gamma.ravel() * f._inv_std)[:, None]
        return (
            f._layout.restore(gx.astype(x.dtype, copy=False), x.shape),
            ggamma.reshape(gamma.shape).astype(gamma.dtype, copy=False),
            gbeta.reshape(gamma.shape).astype(gamma.dtype, copy=False),
        )

    def backward(self, indexes, grad_outputs):
        raise RuntimeError(
            "PaperBatchNormalization has no second derivatives; "
            "CrossBatchNormalization has"
        )
