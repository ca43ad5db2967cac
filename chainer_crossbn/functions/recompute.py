"""Blocks of a network that keep only their input, and compute the rest again.

Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost" (2016).
:func:`chainer.functions.forget` does this, too, but computes the statistics over all
ranks again. Here they are kept, which are few numbers, so that nothing is communicated
twice.
"""

from __future__ import annotations

import chainer
import numpy
from chainer import function_node

from chainer_crossbn.functions import _statistics


class Recomputed(function_node.FunctionNode):
    """A block of which only the input is kept.

    Its inputs are that of the block and the block's parameters.

    Args:
        block (chainer.Link): The block.
        parameters (list of chainer.Parameter): Its parameters.

    Attributes:
        block (chainer.Link): The block.
    """

    def __init__(self, block, parameters):
        self.block = block
        self._parameters = parameters
        self._records = []

    def forward(self, inputs):
        self.retain_inputs((0,))
        with chainer.no_backprop_mode(), _statistics.record(self._records):
            return (self.block(chainer.Variable(inputs[0])).array,)

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise RuntimeError("a recomputed block has no second derivatives")
        (x,) = self.get_retained_inputs()
        x = chainer.Variable(x.array, requires_grad=0 in indexes)
        recomputing = chainer.using_config("in_recomputing", True)
        replaying = _statistics.replay(self._records)
        with chainer.force_backprop_mode(), recomputing, replaying:
            y = self.block(x)
        sources = [x, *self._parameters]
        return chainer.grad([y], [sources[i] for i in indexes], grad_outputs)


def recompute(
    block: chainer.Link, x: chainer.Variable | numpy.ndarray
) -> chainer.Variable:
    """Compute a block, and again in the backward pass, to keep only its input.

    In the second pass, batch normalizations over all ranks take the statistics of the
    first: they communicate nothing, and running statistics do not change. Outputs,
    gradients and running statistics are, bit for bit, those of the block itself. There
    are no second derivatives. Blocks may contain recomputed blocks. Random functions,
    such as dropout, would differ in the second pass and must stay outside.

    A block with parameters that are not initialized yet is computed without
    recomputation, which initializes them.

    Args:
        block (chainer.Link): Takes a Variable and returns one. All parameters that it
            uses are its own.
        x (Variable or array): Its input.

    Returns:
        Variable: Its output.

    Raises:
        RuntimeError: In the backward pass, if second derivatives are wanted, or if the
            block does not compute the same normalizations again.
    """
    # A link may be in several places of the block.
    parameters = list({id(p): p for p in block.params()}.values())
    if not chainer.config.enable_backprop or any(p.array is None for p in parameters):
        return block(x)
    return Recomputed(block, parameters).apply((x, *parameters))[0]
