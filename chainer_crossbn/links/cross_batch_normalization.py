"""Batch normalization link with the statistics of all ranks."""

from __future__ import annotations

import copy

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainermn.communicators.communicator_base import CommunicatorBase

from chainer_crossbn import collectives, kernels
from chainer_crossbn.collectives.layer_names import new_lineage
from chainer_crossbn.functions._layout import check_axis, layout_of
from chainer_crossbn.functions.cross_batch_normalization import (
    check_dtypes,
    check_virtual_ranks,
    cross_batch_normalization,
    mixture,
)


class CrossBatchNormalization(L.BatchNormalization):
    """Batch normalization link that takes its statistics over all ranks.

    It replaces :class:`chainer.links.BatchNormalization`: the arguments are the same
    except ``comm``, and so are the parameters, running statistics and serialized names.
    On one rank the results are the same, up to the rounding that
    :func:`cross_batch_normalization` describes. Running statistics are equal on all
    ranks. With ``chainer.config.train`` off, the link normalizes by the running
    statistics and communicates nothing.

    With ``virtual_ranks`` one process computes for several ranks. Their running
    statistics stay separate; with ``chainer.config.train`` off, the link normalizes by
    the mixture of their distributions. So one device emulates ordinary batch
    normalization on several::

        own = comm.split(comm.rank, 0)  # no communication
        bn = CrossBatchNormalization(64, own, virtual_ranks=8)

    Copies share the communicator. Pickles and snapshots omit it: set ``comm`` on an
    unpickled link.

    Ioffe & Szegedy, "Batch Normalization" (2015), algorithms 1 and 2; over the
    mini-batches of all GPUs, Yashima, Ohyama and Matsuoka, "The relation between
    computing time and accuracy when using Batch Normalization in deep learning".

    Args:
        size (int, tuple of int or None): Shape of the channel axes. ``None`` (then
            ``axis`` is required) takes it from the first mini-batch.
        comm: ChainerMN communicator; statistics are taken over its ranks.
        decay (float): Share of the old running statistics that is kept.
        eps (float): Added to the variance.
        dtype: Dtype of the parameters and running statistics: float16, float32 or
            float64. By default ``chainer.config.dtype``; float32 for ``mixed16``.
        use_gamma (bool): Whether to scale.
        use_beta (bool): Whether to shift.
        initial_gamma: Initializer of gamma, 1 by default.
        initial_beta: Initializer of beta, 0 by default.
        axis (int, tuple of int or None): Axes to average over, ascending.
        initial_avg_mean: Initializer of the running mean, 0 by default.
        initial_avg_var: Initializer of the running variance, 1 by default.
        virtual_ranks (int): Number of ranks whose mini-batches each mini-batch holds,
            as in :func:`cross_batch_normalization`.
        virtual_group_size (int): Number of consecutive virtual ranks that share
            statistics. Where there are several such groups, ``avg_mean`` and
            ``avg_var`` have an additional first axis, the groups.
        label (str or None): Names the layer in errors and in the check that all ranks
            reach the layers in the same order; must be equal on all ranks. Layers with
            the same label, such as copies, are numbered when they are first used in
            training. By default it is the name of the class.

    Attributes:
        comm: The communicator.
        virtual_ranks (int): As above.
        virtual_group_size (int): As above.
        label (str or None): As above.
        gamma (chainer.Parameter or None): Scale, of shape ``size``.
        beta (chainer.Parameter or None): Shift, of shape ``size``.
        avg_mean (array or None): Running mean, of shape ``size``.
        avg_var (array or None): Running variance, of shape ``size``.

    Raises:
        ValueError: If virtual ranks cannot be grouped in this way.

    Example:
        >>> import numpy as np
        >>> from chainer_crossbn import CrossBatchNormalization
        >>> import chainermn
        >>> comm = chainermn.create_communicator("naive")
        >>> bn = CrossBatchNormalization(2, comm)
        >>> y = bn(np.array([[1, 2], [3, 6]], np.float32))
        >>> y.array.round(3)
        array([[-1., -1.],
               [ 1.,  1.]], dtype=float32)
        >>> bn.avg_mean
        array([0.2, 0.4], dtype=float32)
    """

    def __init__(
        self,
        size: int | tuple[int, ...] | None,
        comm: CommunicatorBase | None,
        decay: float = 0.9,
        eps: float = 2e-5,
        dtype=None,
        use_gamma: bool = True,
        use_beta: bool = True,
        initial_gamma=None,
        initial_beta=None,
        axis: int | tuple[int, ...] | None = None,
        initial_avg_mean=None,
        initial_avg_var=None,
        virtual_ranks: int = 1,
        virtual_group_size: int = 1,
        label: str | None = None,
    ) -> None:
        check_virtual_ranks(comm, virtual_ranks, virtual_group_size)
        self.virtual_ranks = virtual_ranks
        self.virtual_group_size = virtual_group_size
        super().__init__(
            size=size,
            decay=decay,
            eps=eps,
            dtype=dtype,
            use_gamma=use_gamma,
            use_beta=use_beta,
            initial_gamma=initial_gamma,
            initial_beta=initial_beta,
            axis=axis,
            initial_avg_mean=initial_avg_mean,
            initial_avg_var=initial_avg_var,
        )
        self.comm = comm
        self.label = label
        self._lineage = new_lineage()

    @property
    def n_groups(self) -> int:
        """int: Number of groups of virtual ranks with separate statistics."""
        return self.virtual_ranks // self.virtual_group_size

    @property
    def printable_specs(self):
        """Iterator of (str, value): What ``print`` shows."""
        if self.avg_mean is not None:
            yield from super().printable_specs
        else:
            yield from (("size", None), ("decay", self.decay), ("eps", self.eps))

    def _initialize_params(self, shape):
        super()._initialize_params(shape)
        if self.n_groups > 1:
            self.avg_mean = self.xp.stack([self.avg_mean] * self.n_groups)
            self.avg_var = self.xp.stack([self.avg_var] * self.n_groups)

    def forward(  # type: ignore[override]  # Chainer's names them **kwargs
        self,
        x: chainer.Variable | numpy.ndarray,
        finetune: bool = False,
        relu: bool = False,
    ) -> chainer.Variable:
        """Normalize ``x``, by batch statistics in training and else by running ones.

        Args:
            x (Variable or array): Shape (N, C, ...), float16, float32 or float64; N
                may differ between the ranks.
            finetune (bool): In training, make the running statistics the plain mean
                over all mini-batches since :meth:`start_finetuning`.
            relu (bool): Whether ReLU follows. In training, where no second derivatives
                are wanted, it takes no additional pass over memory.

        Returns:
            Variable: Same shape and dtype as ``x``.

        Raises:
            RuntimeError: If the link has no communicator, as after unpickling.
            TypeError: If ``x`` has another floating-point dtype.
            CollectiveError, ValueError: As :func:`cross_batch_normalization`.
        """
        if not chainer.config.train:
            return self._normalize_by_running_statistics(x, relu)
        label = self.label or type(self).__name__
        if self.comm is None:
            raise RuntimeError(
                f"{label} has no communicator (pickles leave it out); "
                "set link.comm before training"
            )
        if self.avg_mean is None:
            self._initialize_params(
                tuple(d for i, d in enumerate(x.shape) if i not in self.axis)
            )
        gamma, beta = self._scale_and_shift()
        running_mean, running_var, decay = self.avg_mean, self.avg_var, self.decay
        if chainer.config.in_recomputing:
            running_mean = running_var = None
        elif finetune:
            self.N += 1
            decay = 1 - 1 / self.N
        return self._normalize(
            x,
            gamma,
            beta,
            self.comm,
            eps=self.eps,
            running_mean=running_mean,
            running_var=running_var,
            decay=decay,
            axis=self.axis,
            name=collectives.name_layer(self.comm, label, self._lineage),
            relu=relu,
            virtual_ranks=self.virtual_ranks,
            virtual_group_size=self.virtual_group_size,
        )

    def _scale_and_shift(self):
        like = self.avg_mean if self.n_groups == 1 else self.avg_mean[0]
        gamma = self.xp.ones_like(like) if self.gamma is None else self.gamma
        beta = self.xp.zeros_like(like) if self.beta is None else self.beta
        return gamma, beta

    def _normalize_by_running_statistics(self, x, relu):
        check_dtypes([x])
        if self.avg_mean is None:
            y = super().forward(x)  # takes the shape from x
            return F.relu(y) if relu else y
        mean, var = self.avg_mean, self.avg_var
        if self.n_groups > 1:
            mean, var = mixture(mean, var)
        gamma, beta = self._scale_and_shift()
        if not chainer.config.enable_backprop:
            return self._in_one_pass(x, mean, var, gamma, beta, relu=relu)
        y = F.fixed_batch_normalization(
            x, gamma, beta, mean, var, self.eps, axis=self.axis
        )
        return F.relu(y) if relu else y

    def _in_one_pass(self, x, mean, var, *parameters, relu):
        x, gamma, beta = (
            v.array if isinstance(v, chainer.Variable) else v for v in (x, *parameters)
        )
        layout = layout_of(x.ndim, gamma.ndim, check_axis(self.axis))
        flat = layout.flatten(x)
        mean, var = (v.ravel().astype(numpy.float64) for v in (mean, var))
        inv_std = 1 / (var + self.eps) ** 0.5
        y = kernels.of(flat).normalize(flat, mean, inv_std, gamma, beta, relu)
        return chainer.Variable(layout.restore(y, x.shape), requires_grad=False)

    # The function of training, which comparators override.
    _normalize = staticmethod(cross_batch_normalization)

    def __copy__(self):
        copied = self.__class__.__new__(self.__class__)
        copied.__dict__.update(self.__dict__)
        copied._lineage = new_lineage(self._lineage)
        return copied

    def __deepcopy__(self, memo):
        # A communicator holds an MPI handle: it is shared, not copied.
        memo[id(self.comm)] = self.comm
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__dict__, memo))
        return copied

    def __getstate__(self):
        return {**self.__dict__, "comm": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lineage = new_lineage(self._lineage)
