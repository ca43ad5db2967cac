"""Times and final accuracies of groups of runs as bars."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from chainer_crossbn.plotting import groups as grouping
from chainer_crossbn.plotting import networks, style
from chainer_crossbn.plotting.curves import caption
from chainer_crossbn.plotting.groups import Group

_BAR_INCHES = 0.26
_PAPER_BAR = {"facecolor": "#E4E4E4", "edgecolor": "#777777", "hatch": "////"}
_WHISKER = {"ecolor": "#555555", "elinewidth": 1, "capsize": 2.5, "fmt": "none"}


def epoch_times(groups: list[Group]) -> Figure:
    """Draw training times per epoch and ratios to normalBN, a panel per scale."""
    scales = grouping.by_scale(groups)
    names = grouping.differences(groups)
    sizes = [len(scale) + 0.5 * len({g.batch for g in scale}) for scale in scales]
    height = _BAR_INCHES * sum(sizes) + 0.4 * len(scales) + 1.2
    figure = Figure(figsize=(7.0, height), layout="constrained")
    figure.suptitle("Training time per epoch")
    axes = figure.subplots(
        len(scales), sharex=True, squeeze=False, gridspec_kw={"height_ratios": sizes}
    )[:, 0]
    for ax, scale in zip(axes, scales):
        _epoch_bars(ax, scale)
        if len(scales) > 1:
            title = grouping.describe(scale[0], names)
            ax.set_title(style.wrap(title, 4.6), loc="left")
    # Room for the longest bar's label.
    axes[-1].set_xlim(0, 1.25 * max(g.middle("epoch_time")[2] for g in groups))
    axes[-1].set_xlabel("Training time per epoch [s]")
    notes = ["\N{MULTIPLICATION SIGN}: multiple of normalBN's at the same batch size"]
    notes.append("bar: median over the epochs" + _seed_note(groups))
    caption(figure, groups, notes)
    return figure


def total_times(groups: list[Group], title: str, paper: Mapping[str, float]) -> Figure:
    """Draw the time of whole runs beside the paper's, both relative to normalBN.

    Args:
        groups (list of Group): Finished runs of one scale, one group per network.
        title (str): Title of the figure.
        paper (dict): Network -> seconds in the paper; networks may be missing.
    """
    ours = {group.network: group.middle("total_time") for group in groups}
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    figure.suptitle(title)
    ax = figure.subplots()
    ax.grid(axis="x", visible=False)
    colours = networks.colours(ours)
    for place, (network, seconds) in enumerate(ours.items()):
        look = {"facecolor": colours[network]}
        _ratio_bar(ax, place - 0.2, seconds, ours["normal"][0], look)
        if network in paper:
            theirs = [paper[network]] * 3
            _ratio_bar(ax, place + 0.2, theirs, paper["normal"], _PAPER_BAR)
    ax.set_xticks(range(len(ours)))
    names = [networks.name(network).replace(" as ", "\nas ") for network in ours]
    ax.set_xticklabels(names)
    ax.set_ylabel("Total time, relative to normalBN")
    ax.margins(y=0.3)
    keys = [Patch(facecolor="#555555", label="these runs")]
    keys.append(Patch(label="the paper (TSUBAME-KFC)", **_PAPER_BAR))
    ax.legend(handles=keys, loc="upper left", ncol=2)
    note = f"total time: of the whole run, evaluation included{_seed_note(groups)}"
    caption(figure, groups, [note])
    return figure


def finals(groups: list[Group], title: str) -> Figure:
    """Draw final test accuracy.

    Args:
        groups (list of Group): Groups of one scale, in the order from top to bottom.
        title (str): Title of the figure.
    """
    height = _BAR_INCHES * len(groups) + 1.6
    figure = Figure(figsize=(5.2, height), layout="constrained")
    figure.suptitle(style.wrap(title, 4.8))
    ax = figure.subplots()
    values = 100 * np.array([group.middle("final_accuracy") for group in groups])
    labels = [f"{middle:#.3g}" for middle, _, _ in values]
    _group_bars(ax, groups, places=range(len(groups)), values=values, labels=labels)
    ax.set_xlim(0, 1.2 * values.max())
    ax.set_xlabel("Test accuracy [%]")
    ax.invert_yaxis()
    caption(figure, groups, ["bar: after the last epoch" + _seed_note(groups)])
    return figure


def _epoch_bars(ax, groups):
    batches = sorted({group.batch for group in groups})
    # Half a bar of room between batch sizes.
    places = [i + 0.5 * batches.index(g.batch) for i, g in enumerate(groups)]
    times = np.array([group.middle("epoch_time") for group in groups])
    labels = []
    for group, (seconds, _, _) in zip(groups, times):
        ratio = grouping.time_ratio(seconds, group, groups)
        times_sign = "\N{MULTIPLICATION SIGN}"
        suffix = "" if ratio is None else f"   {times_sign}{ratio:.2f}"
        labels.append(f"{_format_seconds(seconds)}{suffix}")
    _group_bars(ax, groups, places=places, values=times, labels=labels)
    ax.set_ylim(places[-1] + 0.7, places[0] - 0.7)


def _group_bars(
    ax: Axes,
    groups: list[Group],
    places: Sequence[float],
    values: np.ndarray,
    labels: list[str],
) -> None:
    """Draw a horizontal bar for each group; ``values`` has (median, low, high)."""
    colours = networks.colours(group.network for group in groups)
    ax.barh(places, values[:, 0], 0.8, color=[colours[g.network] for g in groups])
    _whiskers(ax, places, values, "xerr")
    for place, label, (_, _, high) in zip(places, labels, values):
        _note(ax, label, (high, place), (5, 0), ha="left", va="center")
    ax.grid(axis="y", visible=False)
    ax.set_yticks(places)
    ax.set_yticklabels([style.plain(group.name) for group in groups])


def _ratio_bar(ax, place, seconds, reference, look):
    ratios = np.array([seconds]) / reference
    ax.bar(place, ratios[0, 0], 0.36, **look)
    _whiskers(ax, [place], ratios, "yerr")
    ratio = f"\N{MULTIPLICATION SIGN}{ratios[0, 0]:.2f}"
    label = f"{_format_seconds(seconds[0])}\n{ratio}"
    _note(ax, label, (place, ratios[0, 2]), (0, 4), ha="center", va="bottom")


def _whiskers(ax, places, values, direction):
    """Mark the range over the seeds; ``values`` has rows of (median, low, high)."""
    middle, low, high = np.transpose(values)
    if np.any(high > low):
        xy = (middle, places) if direction == "xerr" else (places, middle)
        ax.errorbar(*xy, **{direction: (middle - low, high - middle)}, **_WHISKER)


def _note(ax, text, point, offset, **alignment):
    ax.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        fontsize=8,
        **alignment,
    )


def _format_seconds(seconds):
    return f"{seconds:,.0f} s" if seconds > 99.9 else f"{seconds:#.3g} s"


def _seed_note(groups):
    median = grouping.median_of(groups)
    return f"; {median}, whisker: their range" if median else ""
