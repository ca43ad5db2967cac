"""Which network a run has trained.

A network is a value of ``--bn`` with the options that shape the normalization, where
they are not the default: a string such as ``"multigpu"`` or ``"multigpu, front 4, rest
none"``.
"""

from collections.abc import Mapping

from chainer_crossbn.text import printable

# Option -> its default, and how another value is told.
_OPTIONS = {
    "bn_group_size": (None, "groups of {}"),
    "bn_layers": (None, "{}"),
    "bn_rest": (None, "rest {}"),
    "paper_allreduces": (2, "{} all-reduce"),
    "paper_backward": ("exact", "{} backward"),
    "groups": (32, "{} groups"),
    "weight_norm_init": ("norm", "{} init"),
}
OPTIONS = frozenset(_OPTIONS)


def network_of(arguments: Mapping[str, object]) -> str:
    """Return the network that a run has trained.

    Args:
        arguments (dict): The arguments of the run, as in ``args.json``.

    Returns:
        str: The network.
    """
    parts = [printable(arguments["bn"])]
    for option, (default, phrase) in _OPTIONS.items():
        value = arguments.get(option)
        if value is not None and value != default:
            parts.append(phrase.format(printable(value).replace(":", " ")))
    return ", ".join(parts)


def base_of(network: str) -> str:
    """Return the value of ``--bn`` of a network."""
    return network.split(", ")[0]
