"""What networks there are, what they are called, and in which colour they are drawn.

A network is a value of ``--bn`` with the options that shape the normalization, where
they are not the default: a string such as ``"multigpu"`` or ``"multigpu, front 4, rest
none"``.
"""

from matplotlib.colors import to_rgb

from chainer_crossbn.plotting.style import clean

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


def of(arguments):
    """Return the network of a run.

    Args:
        arguments (dict): As ``args.json`` has them.

    Returns:
        str: The network.
    """
    words = [clean(arguments["bn"])]
    for option, (default, phrase) in _OPTIONS.items():
        value = arguments.get(option)
        if value is not None and value != default:
            words.append(phrase.format(clean(value).replace(":", " ")))
    return ", ".join(words)


def name(network):
    """The paper's name of a network, or the value of ``--bn`` where it has none."""
    base, *options = network.split(", ")
    words = _BASES[base][0] if base in _BASES else base
    return f"{words} ({', '.join(options)})" if options else words


def rank(network):
    """Sort key that puts the paper's networks first, and variants behind theirs."""
    names = list(_BASES)
    base = _base(network)
    return (names.index(base) if base in _BASES else len(names), network)


def colours(networks):
    """Choose the colours of a figure; variants of one network are darker and darker.

    Args:
        networks (iterable of str): What is drawn.

    Returns:
        dict: Network -> colour.
    """
    variants = {}
    for network in sorted(set(networks), key=rank):
        variants.setdefault(_base(network), []).append(network)
    return {
        network: _darker(base, _DARKEST * i / max(len(members) - 1, 1))
        for base, members in variants.items()
        for i, network in enumerate(members)
    }


def _base(network):
    return network.split(", ")[0]


def _darker(base, amount):
    colour = _BASES.get(base, (None, _OTHER_COLOUR))[1]
    return tuple(part * (1 - amount) for part in to_rgb(colour))
