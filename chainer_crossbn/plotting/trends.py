"""One number of each run against batch size, learning rate or layer."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from chainer_crossbn.plotting.curves import caption
from chainer_crossbn.plotting.groups import Group
from chainer_crossbn.plotting.style import Colour

_PANEL = (4.1, 3.3)


class Line(NamedTuple):
    """A line with the range of its points.

    Attributes:
        label (str): For the legend.
        colour: A colour, as Matplotlib takes it.
        points (dict): x -> the values there, one per seed.
        dashed (bool): Whether the line is dashed, and its markers are empty.
    """

    label: str
    colour: Colour
    points: dict[float, list[float]]
    dashed: bool = False


class Panel(NamedTuple):
    """Lines that share axes.

    Attributes:
        x_label (str): Label of the x axis.
        y_label (str): Label of the y axis.
        lines (list of Line): The lines.
        log_x (bool): Whether the x axis is logarithmic, with a tick at each x.
        log_y (bool): Whether the y axis is logarithmic.
    """

    x_label: str
    y_label: str
    lines: list[Line]
    log_x: bool = True
    log_y: bool = False


def draw(
    panels: list[Panel], title: str, groups: list[Group], notes: Iterable[str] = ()
) -> Figure:
    """Draw panels side by side.

    Args:
        panels (list of Panel): From left to right.
        title (str): Title of the figure.
        groups (list of Group): Groups whose scale the caption gives.
        notes (iterable of str): Further lines of the caption.
    """
    width, height = _PANEL
    figure = Figure(figsize=(width * len(panels), height + 0.9), layout="constrained")
    figure.suptitle(title)
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        _draw(ax, panel)
    caption(figure, groups, notes)
    return figure


def _draw(ax, panel):
    for line in panel.lines:
        xs = sorted(line.points)
        values = [line.points[x] for x in xs]
        ax.plot(
            xs,
            [np.median(v) for v in values],
            linestyle="--" if line.dashed else "-",
            color=line.colour,
            marker="o",
            markerfacecolor="white" if line.dashed else line.colour,
            label=line.label,
        )
        if any(len(v) > 1 for v in values):
            low, high = [min(v) for v in values], [max(v) for v in values]
            ax.fill_between(xs, low, high, color=line.colour, alpha=0.15, linewidth=0)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    if panel.log_x:
        xs = sorted({x for line in panel.lines for x in line.points})
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(xs))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(xs, [f"{x:g}" for x in xs])
    if panel.log_y:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    else:
        ax.set_ylim(bottom=0)
    ax.legend()
