"""Optimizers with a fast path on CPUs."""

import chainer
from chainer.optimizers.momentum_sgd import MomentumSGDRule

from chainer_crossbn import kernels


class MomentumSGD(chainer.optimizers.MomentumSGD):
    """Momentum SGD with weight decay on all parameters.

    It makes the steps of :class:`chainer.optimizers.MomentumSGD` with the hook
    :class:`chainer.optimizer_hooks.WeightDecay`. On CPUs it makes them in one pass over
    each parameter, and does not change gradients.

    Args:
        lr (float): Learning rate.
        momentum (float): Factor of the momentum.
        weight_decay (float): Rate of the weight decay.
    """

    def __init__(
        self, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0
    ):
        super().__init__(lr, momentum)
        self.weight_decay = weight_decay

    def create_update_rule(self):
        return _Rule(self.hyperparam, self.weight_decay)


class _Rule(MomentumSGDRule):
    def __init__(self, parent_hyperparam, weight_decay):
        super().__init__(parent_hyperparam)
        self._weight_decay = weight_decay

    def update_core(self, param):
        """Update a parameter by a kernel, or by Chainer's hook and rule."""
        arrays = param.array, param.grad, self.state["v"]
        if param.grad is not None and all(_fits(v, arrays[0]) for v in arrays):
            kernels.sgd.momentum_sgd(
                *arrays,
                self.hyperparam.lr,
                self.hyperparam.momentum,
                self._weight_decay,
            )
            return
        if param.grad is not None and self._weight_decay:
            param.grad += self._weight_decay * param.array
        super().update_core(param)


def _fits(array, like):
    return (
        kernels.are_compiled_for(array)
        and array.dtype == like.dtype
        and array.flags.c_contiguous
    )
