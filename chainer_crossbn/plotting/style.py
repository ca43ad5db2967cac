"""Labels, markers and looks that all figures share."""

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Union

import matplotlib

from chainer_crossbn.text import printable

# As Matplotlib takes it.
Colour = Union[str, tuple[float, float, float]]

_MARKERS = {2: "v", 4: "s", 8: "^", 16: "D", 32: "P", 64: "o"}
_OTHER_MARKER = "X"
_NAMES = {
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
def applied() -> Iterator[None]:
    """Draw and save under the package's style, whatever the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def marker(batch: int) -> str:
    """Return the marker of a batch size."""
    return _MARKERS.get(batch, _OTHER_MARKER)


def lighter(colour: Colour, amount: float) -> Colour:
    """Mix a colour with white; ``amount`` 0 leaves it, 1 gives white."""
    rgb = matplotlib.colors.to_rgb(colour)
    return tuple(part + (1 - part) * amount for part in rgb)


def setting(name: str, value: object) -> str:
    """Describe a setting, such as ``"8 ranks"`` or ``"lr 0.05"``."""
    label = printable(name.replace("_", " "))
    if value is None:
        return f"{label} unset"
    if isinstance(value, bool):
        return label if value else f"no {label}"
    if name in ("dataset", "model"):
        return _NAMES.get(str(value), printable(value))
    number = f"{value:.4g}" if isinstance(value, float) else printable(value)
    if name in _COUNTED and isinstance(value, int):
        one, many = _COUNTED[name]
        return f"{value:,} {one if value == 1 else many}"
    return f"{label} {number}"


def plain(text: str) -> str:
    """Escape what Matplotlib would typeset as mathematics."""
    return text.replace("$", r"\$")


def wrap(text: str, inches: float) -> str:
    """Break text into lines that fit a width in the small print."""
    return "\n".join(textwrap.wrap(plain(text), int(15 * inches)))


def slug(text: str) -> str:
    """Make text fit for a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
