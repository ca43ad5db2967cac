"""Batch normalization with the statistics of all ranks.

The maths is that of Ioffe & Szegedy, "Batch Normalization" (2015), with mean, variance
and the sums of the backward pass taken over the mini-batches of all ranks (Yashima,
Ohyama and Matsuoka, "The relation between computing time and accuracy when using Batch
Normalization in deep learning"). Each direction sends one float64 vector: the moments
(count, means, M2) forward, two sums per channel backward.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import chainer
import chainer.functions as F
import numpy
from chainer import backend, function_node
from chainer.utils import type_check
from chainermn.communicators.communicator_base import CommunicatorBase

from chainer_crossbn import kernels
from chainer_crossbn.collectives import merge_moments, sum_over_ranks
from chainer_crossbn.functions import _gradients, _statistics
from chainer_crossbn.functions._layout import check_axis, layout_of


class CrossBatchNormalizationFunction(function_node.FunctionNode):
    """Function node of :func:`cross_batch_normalization`.

    Attributes:
        layer (str): Name of the layer.
    """

    def __init__(
        self,
        comm,
        eps,
        running_mean,
        running_var,
        decay,
        axis,
        name,
        relu=False,
        virtual_ranks=1,
        virtual_group_size=1,
    ):
        self._comm = comm
        self._virtual = virtual_ranks, virtual_group_size
        self._eps = eps
        self._running = running_mean, running_var
        self._decay = decay
        self._axis = check_axis(axis)
        self._relu = relu
        self.layer = name

    def check_type_forward(self, in_types):
        type_check.expect(in_types.size() == 3)
        x, gamma, beta = in_types
        type_check.expect(
            x.dtype.kind == "f",
            gamma.dtype.kind == "f",
            gamma.dtype == beta.dtype,
            gamma.shape == beta.shape,
            gamma.ndim >= 1,
        )
        axis_ndim = 1 if self._axis is None else len(self._axis)
        type_check.expect(x.ndim >= gamma.ndim + axis_ndim)
        layout = layout_of(
            type_check.eval(x.ndim), type_check.eval(gamma.ndim), self._axis
        )
        type_check.expect(gamma.ndim == len(layout.key_axis))
        for i, key in enumerate(layout.key_axis):
            type_check.expect(x.shape[key] == gamma.shape[i])

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        check_dtypes(inputs)
        x, gamma, beta = inputs
        self._layout = layout_of(x.ndim, gamma.ndim, self._axis)
        flat = self._layout.flatten(x)
        self._groups = self._groups_of(x)
        self._count, self._mean, m2 = _statistics.get(
            self.layer, lambda: self._global_statistics(flat)
        )
        y, self._inv_std = kernels.of(flat).normalize_batch(
            flat,
            self._count,
            self._mean,
            m2,
            self._eps,
            gamma,
            beta,
            self._running,
            self._decay,
            relu=self._relu,
            groups=self._groups,
        )
        # Copies, as parameters may change before the backward pass.
        self._relu_of = (gamma.copy(), beta.copy()) if self._relu else None
        return (self._layout.restore(y, x.shape),)

    def _global_statistics(self, flat):
        """Return count, mean and M2 of the mini-batches of all ranks.

        Where there are several groups, the count is ``None``, as each has its own.
        """
        n, _, s = flat.shape
        mean, m2 = kernels.of(flat).moments(flat, self._groups)
        if self._groups.count > 1:
            return _statistics.Statistics(None, mean, m2)
        count, mean, m2 = merge_moments(
            self._comm, n * s, mean, m2, f"{self.layer} forward"
        )
        on_host = isinstance(count, int)
        if on_host and count == 0:
            raise ValueError(
                f"{self.layer}: the mini-batches of all ranks are empty; "
                "at least one rank must have an element"
            )
        if on_host and count == 1:
            warnings.warn(
                "A batch with no more than one sample has been given to "
                "cross_batch_normalization, which will always output beta for it. "
                "This could be caused by running evaluation while "
                "chainer.config.train=True.",
                UserWarning,
                stacklevel=2,
            )
        return _statistics.Statistics(count, mean, m2)

    def _groups_of(self, x):
        """Return the groups of a mini-batch, which must have an image for each rank."""
        virtual_ranks, size = self._virtual
        if virtual_ranks == size:
            return kernels.WHOLE
        if 0 not in self._layout.axis:
            raise ValueError(
                f"{self.layer}: virtual ranks have parts of the first axis, which must "
                f"be one of those that are averaged over, {self._layout.axis}"
            )
        if len(x) < virtual_ranks or x.size == 0:
            raise ValueError(
                f"{self.layer}: a mini-batch of {len(x)} samples is too small for "
                f"{virtual_ranks} virtual ranks; each must have at least one"
            )
        return kernels.Groups(len(x), virtual_ranks, size)

    def backward(self, indexes, grad_outputs):
        x, gamma = self.get_retained_inputs()
        (gy,) = grad_outputs
        relu_of = self._relu_of
        if self._relu and chainer.config.enable_backprop:
            gy = gy * self._passed(x.array)
            relu_of = None
        grad = _CrossBatchNormalizationGrad(
            self._comm,
            self._layout,
            self._groups,
            self._count,
            self._mean,
            self._inv_std,
            self._eps,
            self.layer,
            relu_of,
        )
        return _gradients.apply(grad, (x, gamma, gy))

    def _passed(self, x):
        """Return 1 where ReLU passes its input on, else 0."""
        # As the kernels do: before it is rounded to the dtype of x.
        flat = self._layout.flatten(x).astype(numpy.float64, copy=False)
        y = kernels.of(flat).normalize(
            flat, self._mean, self._inv_std, *self._relu_of, groups=self._groups
        )
        return self._layout.restore((y > 0).astype(x.dtype), x.shape)


class _CrossBatchNormalizationGrad(function_node.FunctionNode):
    def __init__(self, comm, layout, groups, count, mean, inv_std, eps, name, relu_of):
        self._comm = comm
        self._layout = layout
        self._groups = groups
        self._count = count
        self._mean = mean
        self._inv_std = inv_std
        self._eps = eps
        self._name = name
        self._relu_of = relu_of

    def forward(self, inputs):
        self.retain_inputs((0, 1, 2))
        x, gamma, gy = inputs
        flat_x = self._layout.flatten(x)
        flat_gy = self._layout.flatten_as(gy, flat_x)
        on_device = kernels.of(flat_x)
        arrays = flat_x, flat_gy, self._mean, self._inv_std
        sums, own = on_device.gradient_sums(
            *arrays, gamma.dtype, self._relu_of, self._groups
        )
        total = sums
        if self._groups.count == 1:
            total = sum_over_ranks(self._comm, sums, f"{self._name} backward")
        gx = on_device.input_gradient(
            *arrays, gamma, total, self._count, self._relu_of, self._groups
        )
        gbeta, ggamma = own.reshape(2, *gamma.shape)
        return self._layout.restore(gx, x.shape), ggamma, gbeta

    def backward(self, indexes, grad_outputs):
        """Differentiate the sum of the ranks' objectives once more.

        Everything is float64 and made of differentiable functions, the mean and the
        variance included, so that derivatives of any order are right.
        """
        x, gamma, gy = self.get_retained_inputs()
        ggx, gggamma, ggbeta = (
            _zeros_like(v) if g is None else g
            for g, v in zip(grad_outputs, (x, gamma, gamma))
        )
        dtypes = x.dtype, gamma.dtype, gy.dtype
        x, gamma, gy, ggx, gggamma, ggbeta = (
            F.cast(v, numpy.float64) for v in (x, gamma, gy, ggx, gggamma, ggbeta)
        )
        if self._groups.count == 1:
            gx, ggamma, ggy = self._second_derivatives(
                x, gamma, gy, ggx, gggamma, ggbeta, self._count
            )
        else:
            starts = self._groups.starts(len(x))[1:-1]
            parts = (F.split_axis(v, starts, axis=0) for v in (x, gy, ggx))
            derivatives = [
                self._second_derivatives(
                    x_part, gamma, gy_part, ggx_part, gggamma, ggbeta, None
                )
                for x_part, gy_part, ggx_part in zip(*parts)
            ]
            gxs, ggammas, ggys = zip(*derivatives)
            gx, ggy = F.concat(gxs, axis=0), F.concat(ggys, axis=0)
            ggamma = sum(ggammas)
        return tuple(F.cast(g, d) for g, d in zip((gx, ggamma, ggy), dtypes))

    def _second_derivatives(self, x, gamma, gy, ggx, gggamma, ggbeta, count):
        """Return the gradients of x, gamma and gy, of the samples of one group.

        Args:
            x, gamma, gy, ggx, gggamma, ggbeta (Variable): float64.
            count: Elements of a channel of the global batch, or ``None`` for those of
                ``x``.
        """
        axis, ndim = self._layout.axis, x.ndim
        if count is None:
            count = math.prod(x.shape[i] for i in axis)

        def local(v):
            return F.sum(v, axis=axis)

        def over_ranks(vectors, part):
            layer = f"{self._name} second derivative, {part}"
            return F.separate(_sum(self._comm, F.stack(vectors), layer))

        def expand(v):
            return F.broadcast_to(self._layout.expand(v, ndim), x.shape)

        (mean,) = over_ranks([local(x) / count], "mean")
        deviation = x - expand(mean)
        (var,) = over_ranks([local(deviation * deviation) / count], "variance")
        inv_std = (var + self._eps) ** -0.5
        x_hat = deviation * expand(inv_std)

        # a bar is a mean over the global batch
        gy_bar, gy_x_hat_bar, ggx_bar, ggx_x_hat_bar, ggx_gy_bar = over_ranks(
            [local(v) / count for v in (gy, gy * x_hat, ggx, ggx * x_hat, ggx * gy)],
            "gradients",
        )
        scale = expand(gamma * inv_std)
        ggy = (
            scale * (ggx - expand(ggx_bar) - x_hat * expand(ggx_x_hat_bar))
            + expand(gggamma) * x_hat
            + expand(ggbeta)
        )
        gx_over_gamma = expand(inv_std) * (
            gy - expand(gy_bar) - x_hat * expand(gy_x_hat_bar)
        )
        ggamma = local(ggx * gx_over_gamma)
        # h is the gradient at x_hat, r that at log(inv_std), over count
        h = expand(gggamma) * gy - scale * (
            ggx * expand(gy_x_hat_bar) + gy * expand(ggx_x_hat_bar)
        )
        h_bar, h_x_hat_bar = over_ranks(
            [local(h) / count, local(h * x_hat) / count], "input"
        )
        r = (
            gamma
            * inv_std
            * (ggx_gy_bar - ggx_bar * gy_bar - ggx_x_hat_bar * gy_x_hat_bar)
        )
        gx = expand(inv_std) * (h - expand(h_bar) - x_hat * expand(h_x_hat_bar + r))
        return gx, ggamma, ggy


def _zeros_like(variable):
    xp = backend.get_array_module(variable.array)
    return chainer.Variable(xp.zeros_like(variable.array))


class _SumOverRanks(function_node.FunctionNode):
    """Sum over the ranks; its gradient is the sum over the ranks of the gradients."""

    def __init__(self, comm, layer):
        self._comm = comm
        self._layer = layer

    def forward(self, inputs):
        (v,) = inputs
        total = sum_over_ranks(self._comm, v.ravel(), self._layer)
        return (total.reshape(v.shape),)

    def backward(self, indexes, grad_outputs):
        return (_sum(self._comm, grad_outputs[0], f"{self._layer}, gradient"),)


def _sum(comm, v, layer):
    return _SumOverRanks(comm, layer).apply((v,))[0]


def cross_batch_normalization(
    x: chainer.Variable | numpy.ndarray,
    gamma: chainer.Variable | numpy.ndarray,
    beta: chainer.Variable | numpy.ndarray,
    comm: CommunicatorBase,
    eps: float = 2e-5,
    running_mean: numpy.ndarray | None = None,
    running_var: numpy.ndarray | None = None,
    decay: float = 0.9,
    axis: int | tuple[int, ...] | None = None,
    name: str | None = None,
    relu: bool = False,
    virtual_ranks: int = 1,
    virtual_group_size: int = 1,
) -> chainer.Variable:
    """Normalize by the mean and the variance of the mini-batches of all ranks.

    All ranks must call it in the same order. Their batches may differ in size, and
    some may be empty. Forward and backward make one all-reduce each, of 2C + 3 and
    2C + 2 float64. Arithmetic is float64, and moments are merged pairwise (Chan, Golub
    and LeVeque, 1979), so that results for float32 data are exact up to rounding: the
    variance has a relative error of about 1e-16 * mean / std (its square, if the
    communicator has no ``mpi_comm``). A batch of two values per channel leaves so
    little of the gradient of ``x``, eps / var, that its error in float64 can exceed
    1e-11 of the largest. ``gamma`` and ``beta`` get the gradients of this rank's
    mini-batch alone, which add up over the ranks to those of the global batch.

    Ioffe & Szegedy, "Batch Normalization" (2015), algorithm 1, with the mini-batch of
    all GPUs: Yashima, Ohyama and Matsuoka, "The relation between computing time and
    accuracy when using Batch Normalization in deep learning".

    Args:
        x (Variable or array): Shape (N, C, ...), float16, float32 or float64, of any
            byte order and layout.
        gamma (Variable or array): Scale, of the shape of the channel axes.
        beta (Variable or array): Shift, of the same shape and dtype.
        comm: ChainerMN communicator, or any object with ``size`` and ``allreduce``.
        eps (float): Added to the variance.
        running_mean (array or None): Updated in place, of the shape of ``gamma``.
        running_var (array or None): Likewise, by the unbiased variance.
        decay (float): Share of the old running statistics that is kept.
        axis (int, tuple of int or None): Axes to average over, ascending. By default
            the first one and all after the channel axes.
        name (str or None): Name of the layer in errors and in the check that all ranks
            reach the layers in the same order; must be equal on all ranks. Without
            names, layers of equal shape cannot be distinguished.
        relu (bool): Whether ReLU follows. Where no second derivatives are wanted, it
            takes no additional pass over memory.
        virtual_ranks (int): Number of ranks whose mini-batches ``x`` holds, one after
            the other along its first axis, as :func:`numpy.array_split` divides it.
            Each is normalized separately, in the same passes over memory: ghost batch
            normalization (Hoffer, Hubara and Soudry, "Train longer, generalize better",
            2017, algorithm 1).
        virtual_group_size (int): Number of consecutive virtual ranks that share
            statistics; divides ``virtual_ranks``. Where there is more than one such
            group, ``comm`` must have one rank, nothing is communicated, and
            ``running_mean`` and ``running_var`` have an additional first axis, the
            groups.

    Returns:
        Variable: Same shape and dtype as ``x``.

    Raises:
        CollectiveError: If the ranks do not all reach this layer.
        TypeError: If an argument has another floating-point dtype, such as longdouble.
        ValueError: If the mini-batches of all ranks are empty. Where the count of their
            elements is not copied to the host (NCCL), results are NaN instead. Also if
            there are fewer samples than virtual ranks, or virtual ranks with separate
            statistics in a communicator of several ranks.

    See :func:`chainer.functions.batch_normalization` for the function of one rank.

    Example:
        >>> import numpy as np
        >>> from chainer_crossbn import cross_batch_normalization
        >>> import chainermn
        >>> comm = chainermn.create_communicator("naive")
        >>> x = np.array([[1, 2], [3, 6]], np.float32)
        >>> gamma, beta = np.ones(2, np.float32), np.zeros(2, np.float32)
        >>> mean, var = np.zeros(2, np.float32), np.ones(2, np.float32)
        >>> y = cross_batch_normalization(
        ...     x, gamma, beta, comm, running_mean=mean, running_var=var, decay=0.5
        ... )
        >>> y.array.round(3)
        array([[-1., -1.],
               [ 1.,  1.]], dtype=float32)
        >>> mean, var
        (array([1., 2.], dtype=float32), array([1.5, 4.5], dtype=float32))
    """
    name = name or f"cross_batch_normalization of shape {gamma.shape}"
    check_virtual_ranks(comm, virtual_ranks, virtual_group_size)
    node = CrossBatchNormalizationFunction(
        comm,
        eps,
        running_mean,
        running_var,
        decay,
        axis,
        name,
        relu=relu,
        virtual_ranks=virtual_ranks,
        virtual_group_size=virtual_group_size,
    )
    return node.apply((x, gamma, beta))[0]


def check_dtypes(arrays: Iterable[chainer.Variable | numpy.ndarray]) -> None:
    """Raise TypeError if floating-point arrays have a dtype that is not supported."""
    for array in arrays:
        if array.dtype.char not in "efd":
            raise TypeError(
                "batch normalization takes float16, float32 or float64, not "
                f"{array.dtype}"
            )


def check_virtual_ranks(
    comm: CommunicatorBase | None, virtual_ranks: int, virtual_group_size: int
) -> None:
    """Raise ValueError if virtual ranks cannot be grouped in this way."""
    sizes = virtual_ranks, virtual_group_size
    if min(sizes) < 1 or virtual_ranks % virtual_group_size:
        raise ValueError(
            f"virtual_group_size {virtual_group_size} must divide virtual_ranks "
            f"{virtual_ranks}, both at least 1"
        )
    n_ranks = 1 if comm is None else comm.size
    if virtual_ranks > virtual_group_size and n_ranks > 1:
        raise ValueError(
            "groups of virtual ranks with separate statistics need a communicator of "
            f"one rank, not of {n_ranks}: comm.split(comm.rank, 0) makes one"
        )


def mixture(
    means: numpy.ndarray, variances: numpy.ndarray, between: bool = True
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return mean and variance of a mixture of distributions, in equal parts.

    Args:
        means: Array of shape (n, ...), the means of n distributions.
        variances: Array of the same shape, their variances.
        between (bool): Whether the variance of the means is part of the variance.
    """
    mean, var = means.mean(axis=0), variances.mean(axis=0)
    if between:
        deviations = means - mean
        var = var + (deviations * deviations).mean(axis=0)
    return mean, var
