"""Words, markers and looks: the same in every figure."""

import re
import textwrap
from contextlib import contextmanager

import matplotlib

from chainer_crossbn.text import printable

_MARKERS = {2: "v", 4: "s", 8: "^", 16: "D", 32: "P", 64: "o"}
_OTHER_MARKER = "X"
_WORDS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "synthetic": "synthetic images",
    "vgg16": "VGG16",
    "alexnet": "AlexNet",
    "googlenet": "GoogLeNet",
    **{f"resnet{depth}": f"ResNet-{depth}" for depth in (20, 50, 56, 101, 110, 152)},
}
_COUNTED = {
    "epoch": ("epoch", "epochs"),
    "ranks": ("rank", "ranks"),
    "train_size": ("training image", "training images"),
}

_RC = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.titlesize": 11,
    "font.size": 9,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextmanager
def applied():
    """Draw and save under the package's style, whatever the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def marker(batch):
    """The marker of a batch size."""
    return _MARKERS.get(batch, _OTHER_MARKER)


def lighter(colour, amount):
    """Mix a colour with white; ``amount`` 0 leaves it, 1 gives white."""
    rgb = matplotlib.colors.to_rgb(colour)
    return tuple(part + (1 - part) * amount for part in rgb)


def setting(name, value):
    """A setting in words, such as ``"8 ranks"`` or ``"lr 0.05"``."""
    words = printable(name.replace("_", " "))
    if value is None:
        return f"{words} unset"
    if isinstance(value, bool):
        return words if value else f"no {words}"
    if name in ("dataset", "model"):
        return _WORDS.get(str(value), printable(value))
    number = f"{value:.4g}" if isinstance(value, float) else printable(value)
    if name in _COUNTED and isinstance(value, int):
        one, many = _COUNTED[name]
        return f"{value:,} {one if value == 1 else many}"
    return f"{words} {number}"


def plain(text):
    """Keep matplotlib from reading mathematics into a label."""
    return text.replace("$", r"\$")


def wrap(text, inches):
    """Break text into lines that fit the small print of a figure that wide."""
    return "\n".join(textwrap.wrap(plain(text), int(15 * inches)))


def slug(text):
    """Make text fit for a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
