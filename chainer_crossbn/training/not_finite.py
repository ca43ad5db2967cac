"""Find the layer of a network where values first become infinite or NaN."""

import chainer


def origin(output: chainer.Variable, model: chainer.Link) -> str:
    """Return the first layer of a forward pass with an output that is not finite.

    Only arrays that functions retain for the backward pass are examined.

    Args:
        output (chainer.Variable): Result of the pass, such as a loss.
        model (chainer.Link): Names the layers by its parameters.

    Returns:
        str: Such as ``"stages/1/0/conv"``; ``"the input"`` if that is not finite; or
        ``"the last layer"`` if all retained arrays are finite.
    """
    names = {
        id(parameter.node): name[1:].rpartition("/")[0]
        for name, parameter in model.namedparams()
    }
    names.update((id(link), name[1:]) for name, link in model.namedlinks())
    for function in _functions(output):
        for node in function.inputs:
            if id(node) not in names and node.data is not None and not _finite(node):
                return _layer(node.creator_node, names)
    return "the last layer"


def _functions(output):
    """Return the functions of a forward pass, in the order of their execution."""
    functions, pending = {}, [output.creator_node]
    while pending:
        function = pending.pop()
        if function is not None and id(function) not in functions:
            functions[id(function)] = function
            pending += [node.creator_node for node in function.inputs]
    return sorted(functions.values(), key=lambda function: function.rank)


def _finite(node):
    xp = chainer.backend.get_array_module(node.data)
    return bool(xp.isfinite(node.data).all())


def _layer(function, names):
    """Return the name of the link whose parameters a function, or one before it, uses.

    A recomputed block is a link itself.
    """
    while function is not None:
        if id(getattr(function, "block", None)) in names:
            return names[id(function.block)]
        for node in function.inputs:
            if id(node) in names:
                return names[id(node)]
        function = function.inputs[0].creator_node
    return "the input"
