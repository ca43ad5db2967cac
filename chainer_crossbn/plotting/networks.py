"""How networks are named in figures, and in which colour they are drawn.

Networks are strings, as :mod:`chainer_crossbn.runs.networks` describes them.
"""

from collections.abc import Iterable

from matplotlib.colors import to_rgb

from chainer_crossbn.plotting.style import Colour
from chainer_crossbn.runs.networks import base_of

# From the palettes of Okabe and Ito and of Tol, made for colour-blind readers.
_BASES = {
    "none": ("noBN", "#000000"),
    "normal": ("normalBN", "#0072B2"),
    "multigpu": ("multigpuBN", "#D55E00"),
    "paper": ("multigpuBN as written", "#E69F00"),
    "chainermn": ("ChainerMN's BN", "#56B4E9"),
    "chainer": ("Chainer's BN", "#009E73"),
    "layer": ("LayerNorm", "#CC79A7"),
    "group": ("GroupNorm", "#999933"),
    "weight": ("WeightNorm", "#882255"),
}
_OTHER_COLOUR = "#888888"
_DARKEST = 0.6


def name(network: str) -> str:
    """Return the paper's name of a network, or the value of ``--bn`` without one."""
    base, *options = network.split(", ")
    label = _BASES[base][0] if base in _BASES else base
    return f"{label} ({', '.join(options)})" if options else label


def rank(network: str) -> tuple[int, str]:
    """Return a sort key: the paper's networks first, each before its variants."""
    names = list(_BASES)
    base = base_of(network)
    return (names.index(base) if base in _BASES else len(names), network)


def colours(networks: Iterable[str]) -> dict[str, Colour]:
    """Choose the colours of a figure; each variant of a network is darker.

    Args:
        networks (iterable of str): The networks in the figure.

    Returns:
        dict: Network -> colour as RGB.
    """
    variants = {}
    for network in sorted(set(networks), key=rank):
        variants.setdefault(base_of(network), []).append(network)
    return {
        network: _darker(base, _DARKEST * i / max(len(members) - 1, 1))
        for base, members in variants.items()
        for i, network in enumerate(members)
    }


def _darker(base, amount):
    colour = _BASES.get(base, (None, _OTHER_COLOUR))[1]
    return tuple(part * (1 - amount) for part in to_rgb(colour))
