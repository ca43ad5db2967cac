"""Blocks of a network that keep their input alone, and compute the rest anew.

Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost" (2016).
:func:`chainer.functions.forget` does it, too, but takes the statistics over all ranks
anew; here they are kept, which are few numbers, so that nothing is sent twice.
"""

import chainer
from chainer import function_node

from chainer_crossbn.functions.cross_batch_normalization import (
    CrossBatchNormalizationFunction,
)


class Recomputed(function_node.FunctionNode):
    """A block of which the input alone is kept.

    Args:
        block (callable): Takes a Variable and returns one.
        of_input (bool): Whether the gradient of the input is wanted.

    Attributes:
        block (callable): The block.
    """

    def __init__(self, block, of_input):
        self.block = block
        self._of_input = of_input
        self._statistics = []

    def forward(self, inputs):
        self.retain_inputs((0,))
        with chainer.no_backprop_mode(), _Noting(self._statistics):
            return (self.block(chainer.Variable(inputs[0])).array,)

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise RuntimeError("what is recomputed has no second derivatives")
        (x,) = self.get_retained_inputs()
        x = chainer.Variable(x.array, requires_grad=self._of_input)
        again = chainer.using_config("in_recomputing", True)
        with chainer.force_backprop_mode(), again, _Giving(self._statistics):
            y = self.block(x)
        y.grad_var = grad_outputs[0]
        y.backward()
        return (x.grad_var,)


class _Hook(chainer.FunctionHook):
    """Meets each cross-GPU batch normalization, in order.

    Args:
        statistics (list): Of name and global statistics of each in the block.
    """

    def __init__(self, statistics):
        super().__init__()
        # Blocks may lie in blocks.
        self.name = f"chainer_crossbn recomputation {id(self)}"
        self._statistics = statistics

    def forward_preprocess(self, function, in_data):
        if isinstance(function, CrossBatchNormalizationFunction):
            self.meet(function)


class _Noting(_Hook):
    def meet(self, function):
        find = function.global_statistics

        def note(flat):
            found = find(flat)
            self._statistics.append((function.layer, found))
            # Else the function would hold itself, through this one.
            function.global_statistics = lambda flat: found
            return found

        function.global_statistics = note


class _Giving(_Hook):
    def __init__(self, statistics):
        super().__init__(statistics)
        self._left = iter(statistics)

    def meet(self, function):
        layer, found = next(self._left, (None, None))
        if layer != function.layer:
            raise RuntimeError(
                f"{function.layer} was not computed in this place the first time; a "
                "block that is recomputed must compute the same again"
            )
        function.global_statistics = lambda flat: found


def recompute(block, x):
    """Compute a block, and again in the backward pass, to keep nothing but its input.

    The second time, batch normalizations over all ranks take the statistics of the
    first: they communicate nothing, and running statistics do not change. Outputs,
    gradients and running statistics are, bit for bit, as without; there are no second
    derivatives. Blocks may lie in blocks. What is random, such as dropout, would not be
    the same the second time and must stay outside.

    Args:
        block (callable): Takes a Variable and returns one: a link or a function.
        x (Variable or array): Its input.

    Returns:
        Variable: Its output.
    """
    if not chainer.config.enable_backprop:
        return block(x)
    of_input = isinstance(x, chainer.Variable) and x.requires_grad
    # Parameters of the block want gradients, which come by way of the input.
    if not of_input:
        x = chainer.Variable(x.array if isinstance(x, chainer.Variable) else x)
    return Recomputed(block, of_input).apply((x,))[0]
