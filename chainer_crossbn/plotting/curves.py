"""Loss and accuracy of groups of runs as lines."""

import math
from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from chainer_crossbn.plotting import groups as grouping
from chainer_crossbn.plotting import networks, style
from chainer_crossbn.plotting.groups import Group
from chainer_crossbn.runs.reading import (
    TEST_ACCURACY,
    TEST_LOSS,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
)

# Quantity -> axis label, columns of the log, factor to the axis' unit.
QUANTITIES = {
    "loss": ("Loss", TRAIN_LOSS, TEST_LOSS, 1),
    "accuracy": ("Accuracy [%]", TRAIN_ACCURACY, TEST_ACCURACY, 100),
}
# From how many seconds on, seconds in the unit, its name.
_TIME_UNITS = ((7200, 3600, "h"), (180, 60, "min"), (0, 1, "s"))

_MOST_IN_ONE_PANEL = 4
_PANEL_INCHES = {1: (6.6, 3.7), 2: (4.1, 3.0), 3: (3.3, 2.4)}
_MARKERS_A_LINE = 10
_LIGHTEST = 0.5
# A diverging run starts near where the others do, then leaves; the axis stays.
_LOSS_ROOM = 1.5


def one_quantity(
    groups: list[Group], quantity: str, title: str, x: str = "epoch"
) -> Figure:
    """Draw one quantity of all groups, as small multiples if there are many.

    Args:
        groups (list of Group): The groups.
        quantity (str): ``"loss"`` or ``"accuracy"``.
        title (str): Title of the figure.
        x (str): ``"epoch"`` or ``"train_time"``.
    """
    panels = [(name, members, quantity) for name, members in _panels(groups)]
    return _figure(panels, title, x)


def loss_and_accuracy(groups: list[Group], title: str) -> Figure:
    """Draw loss and accuracy against epochs side by side, as the paper does.

    Args:
        groups (list of Group): The groups to draw in both panels.
        title (str): Title of the figure.
    """
    panels = [(None, groups, quantity) for quantity in QUANTITIES]
    return _figure(panels, title, "epoch")


def caption(figure: Figure, groups: list[Group], notes: Iterable[str] = ()) -> None:
    """Write the scale that the groups share, and notes, below a figure."""
    lines = [grouping.common_scale(groups), *notes, *_exceptions(groups)]
    small_print(figure, lines)


def small_print(figure: Figure, lines: Iterable[str]) -> None:
    """Write lines below a figure, wrapped to its width; empty ones are left out."""
    width = figure.get_size_inches()[0]
    text = "\n".join(style.wrap(line, width) for line in lines if line)
    figure.supxlabel(text, fontsize=8, color="#444444", linespacing=1.35)


def seed_notes(groups: list[Group]) -> list[str]:
    """Return a note that explains lines and bands, if there are several seeds."""
    median = grouping.median_of(groups)
    return [f"line: {median}; band: their range"] if median else []


def _panels(groups):
    """Return pairs of a title (None if there is one panel) and its groups."""
    pairs = {(group.network, group.batch) for group in groups}
    if len(groups) <= _MOST_IN_ONE_PANEL and len(pairs) == len(groups):
        return [(None, groups)]
    names = grouping.differences(groups)
    panels = {}
    for group in groups:
        key = (group.batch, grouping.identity(group.settings))
        panels.setdefault(key, []).append(group)
    if len(panels) == 1:
        return [(None, groups)]
    return [(_panel_title(members[0], names), members) for members in panels.values()]


def _panel_title(group, names):
    parts = [f"batch {group.batch}", grouping.describe(group, names)]
    return style.wrap(", ".join(filter(None, parts)), _PANEL_INCHES[3][0])


def _figure(panels, title, x):
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = _PANEL_INCHES[columns]
    groups = list(dict.fromkeys(g for _, members, _ in panels for g in members))
    colours = networks.colours(group.network for group in groups)
    lines = _network_handles(groups, colours, whole=panels[0][0] is None)
    across = _legend_columns(lines, columns * width)
    below = 0.2 * (math.ceil(len(lines) / across) + 1)
    figure = Figure(
        figsize=(columns * width, rows * height + below + 1.0), layout="constrained"
    )
    figure.suptitle(title)
    grid = figure.add_gridspec(
        rows + 1, columns, height_ratios=[height] * rows + [below]
    )
    unit, x_label = _x_unit(groups, x)
    for index, (name, members, quantity) in enumerate(panels):
        ax = figure.add_subplot(grid[index // columns, index % columns])
        _draw(ax, members, quantity, x, unit, colours)
        _set_limits(ax, groups, quantity, x)
        ax.set_title(name, loc="left")
        # Neighbours with the same axis share its labels.
        if index % columns == 0 or quantity != panels[index - 1][2]:
            ax.set_ylabel(QUANTITIES[quantity][0])
        else:
            ax.tick_params(labelleft=False)
        if index + columns >= len(panels):
            ax.set_xlabel(x_label)
        elif x == "epoch":
            ax.tick_params(labelbottom=False)
    _legends(figure.add_subplot(grid[rows, :]), lines, _key_handles(groups), across)
    caption(figure, groups, seed_notes(groups))
    return figure


def _draw(ax, groups, quantity, x, unit, colours):
    _, train, test, factor = QUANTITIES[quantity]
    shades = _shades(groups, colours)
    for group in groups:
        for key, dashes, face in ((train, "--", "white"), (test, "-", None)):
            xs, middle, low, high = group.curve(key, x)
            if np.all(np.isnan(middle)):
                continue
            ax.plot(
                xs / unit,
                middle * factor,
                linestyle=dashes,
                color=shades[group],
                marker=style.marker(group.batch),
                markerfacecolor=face or shades[group],
                markevery=math.ceil(len(xs) / _MARKERS_A_LINE),
            )
            if len(group.runs) > 1:
                ax.fill_between(
                    xs / unit,
                    low * factor,
                    high * factor,
                    color=shades[group],
                    alpha=0.15,
                    linewidth=0,
                )


def _shades(groups, colours):
    """Return the colours of lines; of a network, smaller batch sizes are lighter."""
    shades = {}
    for group in groups:
        batches = sorted({g.batch for g in groups if g.network == group.network})
        below = len(batches) - 1 - batches.index(group.batch)
        amount = _LIGHTEST * below / max(1, len(batches) - 1)
        shades[group] = style.lighter(colours[group.network], amount)
    return shades


def _set_limits(ax, groups, quantity, x):
    """Give all panels of a quantity the same axes; each panel has its own times."""
    if x == "epoch":
        longest = max(run.epochs_done for group in groups for run in group.runs)
        ax.set_xlim(0, longest * 1.02)
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    else:
        ax.set_xlim(left=0)
    _, train, test, factor = QUANTITIES[quantity]
    curves = [group.curve(key) for group in groups for key in (train, test)]
    highs = np.concatenate([high for _, _, _, high in curves]) * factor
    highest = np.max(highs, initial=0, where=~np.isnan(highs))
    if quantity == "accuracy":
        ax.set_ylim(0, min(100, max(20, math.ceil((highest + 2) / 10) * 10)))
    else:
        starts = np.concatenate([mid[~np.isnan(mid)][:1] for _, mid, _, _ in curves])
        room = _LOSS_ROOM * np.median(starts) if len(starts) else 0
        ax.set_ylim(0, 1.05 * min(highest, room) or 1)


def _x_unit(groups, x):
    """Return the seconds in the unit of x (1 for epochs), and the label of the axis."""
    if x == "epoch":
        return 1, "Epoch"
    longest = max(run.train_time for group in groups for run in group.runs)
    seconds, name = next(unit[1:] for unit in _TIME_UNITS if longest >= unit[0])
    return seconds, f"Training time [{name}]"


def _network_handles(groups, colours, whole):
    """Return legend entries of the lines, or of networks where panels have titles."""
    shades = _shades(groups, colours)
    names = grouping.differences(groups)
    handles = {}
    for group in sorted(groups, key=lambda g: networks.rank(g.network)):
        label = networks.name(group.network)
        if whole:
            extra = grouping.describe(group, names)
            label = f"{group.name} ({extra})" if extra else group.name
        handles[label] = Line2D(
            [],
            [],
            color=shades[group] if whole else colours[group.network],
            marker=style.marker(group.batch) if whole else None,
            label=style.plain(label),
        )
    return list(handles.values())


def _key_handles(groups):
    grey = "#555555"
    keys = [
        Line2D([], [], color=grey, linestyle="-", label="test"),
        Line2D([], [], color=grey, linestyle="--", label="train (in test mode)"),
    ]
    if any(len(group.runs) > 1 for group in groups):
        keys.append(Patch(color=grey, alpha=0.2, linewidth=0, label="range of seeds"))
    return keys


def _legends(ax, lines, keys, across):
    ax.axis("off")
    look = {"borderaxespad": 0, "borderpad": 0}
    ax.add_artist(ax.legend(handles=lines, loc="upper center", ncol=across, **look))
    ax.legend(handles=keys, loc="lower center", ncol=len(keys), **look)


def _legend_columns(handles, width):
    longest = max(len(handle.get_label()) for handle in handles)
    return max(1, min(len(handles), int(width / (0.075 * longest + 0.55))))


def _exceptions(groups):
    """Say which runs ended early, and where a loss is NaN."""
    early = [
        f"{group.name} ({style.setting('epoch', run.epochs_done)})"
        for group in groups
        for run in group.runs
        if not run.finished
    ]
    diverged = [
        f"{group.name} (epoch {run.nan_epoch})"
        for group in groups
        for run in group.runs
        if run.nan_epoch is not None
    ]
    return [_listed("unfinished", early), _listed("loss is NaN from", diverged)]


def _listed(what, names):
    if not names:
        return ""
    shown = list(dict.fromkeys(names))
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return f"{what}: {'; '.join(shown[:4])}{more}"
