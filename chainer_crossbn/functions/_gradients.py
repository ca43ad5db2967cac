"""Function nodes that compute gradients."""

import chainer


def apply(node, inputs):
    """Apply a function node that computes gradients, inside of another's ``backward``.

    Where no graph of the gradients is wanted (no double backpropagation) none is made:
    for a small mini-batch it takes as long as the arithmetic.

    Args:
        node (chainer.FunctionNode): Has a ``forward`` that takes arrays.
        inputs (tuple of Variable): Its inputs.

    Returns:
        tuple of Variable: Its outputs.
    """
    if chainer.config.enable_backprop:
        return node.apply(inputs)
    gradients = node.forward(tuple(v.array for v in inputs))
    return tuple(chainer.as_variable(g) for g in gradients)
