"""Which network a run has trained.

A network is a value of ``--bn`` with the options that shape the normalization, where
they are not the default: a string such as ``"multigpu"`` or ``"multigpu, front 4, rest
none"``.
"""

from collections.abc import Mapping

from chainer_crossbn.runs.options import OPTIONS
from chainer_crossbn.text import printable


def network_of(arguments: Mapping[str, object]) -> str:
    """Return the network that a run has trained.

    Args:
        arguments (dict): The arguments of the run, as in ``args.json``.

    Returns:
        str: The network.
    """
    parts = [printable(arguments["bn"])]
    for name, option in OPTIONS.items():
        value = arguments.get(name)
        if option.legend is not None and value not in (None, option.usual):
            parts.append(option.legend.format(printable(value).replace(":", " ")))
    return ", ".join(parts)


def base_of(network: str) -> str:
    """Return the value of ``--bn`` of a network."""
    return network.split(", ")[0]
