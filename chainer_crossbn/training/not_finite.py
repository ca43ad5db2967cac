"""Where in a network numbers first become infinite, or none at all."""

import chainer


def origin(output, model):
    """Name the layer of a forward pass behind which values are first not finite.

    It looks at what functions keep for the backward pass, which may be over.

    Args:
        output (chainer.Variable): What the pass ended in, such as a loss.
        model (chainer.Link): Its parameters give the layers their names.

    Returns:
        str: Such as ``"stages/1/0/conv"``; ``"the input"`` if that is not finite; or
        ``"the last layer"`` where nothing that was kept shows it.
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
    """Return the functions that made a variable, in the order of the forward pass."""
    found, left = {}, [output.creator_node]
    while left:
        function = left.pop()
        if function is not None and id(function) not in found:
            found[id(function)] = function
            left += [node.creator_node for node in function.inputs]
    return sorted(found.values(), key=lambda function: function.rank)


def _finite(node):
    xp = chainer.backend.get_array_module(node.data)
    return bool(xp.isfinite(node.data).all())


def _layer(function, names):
    """Name a function by the link whose parameters it, or one before it, has taken.

    A block that is recomputed is a link itself.
    """
    while function is not None:
        if id(getattr(function, "block", None)) in names:
            return names[id(function.block)]
        for node in function.inputs:
            if id(node) in names:
                return names[id(node)]
        function = function.inputs[0].creator_node
    return "the input"
