"""The figures of the map of learning rates."""

import math

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, NullLocator

from chainer_crossbn.experiments import records, rules_by_claims
from chainer_crossbn.experiments.claims import FAILS, HOLDS
from chainer_crossbn.experiments.learning_rate_map import (
    LARGEST_BATCH,
    MapResults,
    has_diverged,
)
from chainer_crossbn.experiments.rules_by_claims import NOT_RUN, NUMBERS, UNCLEAR
from chainer_crossbn.plotting import curves, networks
from chainer_crossbn.plotting import groups as grouping
from chainer_crossbn.runs.reading import TEST_ACCURACY, TRAIN_ACCURACY

_WIDTH = 8.2
_GREY = "#555555"
# Verdict -> symbol, colour of the cell, colour of the symbol: apart in grey, too.
_LOOKS = {
    HOLDS: ("✓", "#0072B2", "white"),
    FAILS: ("✗", "#F7D9C4", "#7A3B00"),
    UNCLEAR: ("?", "#E3E3E3", "#333333"),
    NOT_RUN: ("·", "white", "#888888"),
}
_MEANINGS = (
    "1a: with BN learning is faster; 1b: with BN the end is better; 2: normalBN and "
    "multigpuBN are alike at 64; 4: at 2 multigpuBN learns, and normalBN not so well; "
    "5: multigpuBN at 2 and normalBN at 64 differ in training, and are alike in the "
    "test; 6a: normalBN learns at 4, but slower and worse than at 64; 6b: at 4 "
    "multigpuBN is better than normalBN"
)
_ROWS = (
    "rows: how the rate goes with the batch size, and the rate at batch size "
    f"{LARGEST_BATCH}; hold: how many claims hold (bold: most)"
)
_SCALINGS = {"constant": "constant", "sqrt": "square root", "linear": "linear"}
# Sizes of the crosses, so that those of several networks at one place are visible.
_CROSSES = {"none": 14, "normal": 11, "multigpu": 7}
_GAP = 0.45  # between scalings, in rows


def draw(results: MapResults) -> dict[str, Figure]:
    """Draw all figures that there are runs for.

    Returns:
        dict: Name -> figure: ``map-INIT`` for each initialization, and ``rules``.
    """
    drawn = {}
    for init in results.scale.map.inits:
        if any(run.arguments["init"] == init for run in results.runs):
            drawn[f"map-{init}"] = _accuracies(results, init)
    if not drawn:
        return {}
    judgements = rules_by_claims.judge_rules(results)
    judgements = rules_by_claims.with_verdict(judgements)
    if judgements:
        drawn["rules"] = _matrix(judgements)
    return drawn


def _accuracies(results, init):
    """Draw final accuracies against the rate, a panel for each batch size."""
    cells = results.scale.map.cells
    batches = sorted({batch for _, batch in cells})
    colours = networks.colours(bn for bn, _ in cells)
    runs = [run for run in results.runs if run.arguments["init"] == init]
    title = f"Final accuracy against learning rate, {init} initialization"
    figure, axes, below = _panels(len(batches), 3.1, title)
    for ax, batch in zip(axes, batches):
        for bn, colour in colours.items():
            if (bn, batch) in cells:
                _lines(ax, results, (bn, batch, init), colour)
        _set_axes(ax, batch, results.scale.map.rates)
    axes[0].set_ylabel("Accuracy after the last epoch [%]")
    axes[0].set_ylim(0, None)
    _legend(below, _handles(colours, any(map(has_diverged, runs))))
    n_planned = results.n_planned // len(results.scale.map.inits)
    part = f"{len(runs)} of {n_planned} runs" if len(runs) < n_planned else ""
    curves.small_print(figure, [grouping.common_scale(grouping.group_runs(runs)), part])
    return figure


def _panels(n, height, title):
    """Return a figure, axes side by side that share y, and axes for a legend."""
    figure = Figure(figsize=(_WIDTH, height + 1.4), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(2, n, height_ratios=[height, 0.2])
    axes = [figure.add_subplot(grid[0, 0])]
    axes += [figure.add_subplot(grid[0, i], sharey=axes[0]) for i in range(1, n)]
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)
    return figure, axes, figure.add_subplot(grid[1, :])


def _legend(ax, handles):
    ax.axis("off")
    ax.legend(handles=handles, loc="center", ncol=len(handles), borderpad=0)


def _lines(ax, results, cell, colour):
    rates = results.scale.map.rates
    runs = [results.run(*cell, rate) for rate in rates]
    for key, dashes, face in (
        (TEST_ACCURACY, "-", colour),
        (TRAIN_ACCURACY, "--", "w"),
    ):
        values = [100 * run.columns[key][-1] if run else math.nan for run in runs]
        ax.plot(rates, values, dashes, color=colour, marker="o", markerfacecolor=face)
    diverged = [rate for rate, run in zip(rates, runs) if run and has_diverged(run)]
    at = [100 * records.CHANCE] * len(diverged)
    size = _CROSSES[cell[0]]
    ax.plot(diverged, at, "x", color=colour, markersize=size, markeredgewidth=1.6)


def _set_axes(ax, batch, rates):
    ax.axhline(100 * records.CHANCE, color=_GREY, linewidth=0.8, linestyle=":")
    ax.set_title(f"batch size {batch}")
    ax.set_xlabel("Learning rate [1/1000]")
    ax.set_xscale("log")
    ax.set_xlim(min(rates) / 1.3, max(rates) * 1.3)
    ax.xaxis.set_major_locator(FixedLocator(rates))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(rates, [f"{1000 * rate:g}" for rate in rates])


def _handles(colours, any_diverged):
    lines = [
        Line2D([], [], color=colour, label=networks.name(bn))
        for bn, colour in colours.items()
    ]
    look = {"color": _GREY, "marker": "o"}
    lines += [
        Line2D([], [], label="test", **look),
        Line2D([], [], linestyle="--", markerfacecolor="w", label="train", **look),
    ]
    if any_diverged:
        look = {"marker": "x", "markersize": 9, "linestyle": "none"}
        lines.append(Line2D([], [], color=_GREY, label="diverged", **look))
    return [*lines, Line2D([], [], color=_GREY, linestyle=":", label="chance")]


def _matrix(judgements):
    """Draw claims x rules, a panel for each initialization."""
    inits = list(dict.fromkeys(rule.init for rule in judgements))
    rows = _rows(judgements)
    height = max(rows.values()) + 1
    _, best = rules_by_claims.best(judgements)
    title = "Which claims hold under which rule for the learning rate"
    figure, axes, below = _panels(len(inits), 0.27 * height + 0.6, title)
    for ax, init in zip(axes, inits):
        for rule, verdicts in judgements.items():
            if rule.init == init:
                y = rows[rule.scaling, rule.base_rate]
                _row(ax, y, verdicts, rule in best)
        ax.set_title(f"{init} initialization")
        ax.set_xlim(-0.5, len(NUMBERS) + 0.6)
        ax.set_xticks([*range(len(NUMBERS)), len(NUMBERS) + 0.1], [*NUMBERS, "hold"])
        ax.tick_params(length=0, labeltop=True, labelbottom=False)
        ax.grid(False)
        ax.spines[:].set_visible(False)
    axes[0].set_ylim(height - 0.5, -0.5)
    axes[0].set_yticks([*rows.values()], [_label(*key) for key in rows])
    handles = [
        Patch(facecolor=face, edgecolor="#BBBBBB", label=f"{symbol}  {verdict}")
        for verdict, (symbol, face, _) in _LOOKS.items()
        if any(verdict in verdicts.values() for verdicts in judgements.values())
    ]
    _legend(below, handles)
    curves.small_print(figure, [_ROWS, _MEANINGS])
    return figure


def _rows(judgements):
    """Return (scaling, rate) -> y of a row, with gaps between scalings."""
    keys = {(rule.scaling, rule.base_rate) for rule in judgements}
    scalings = list(_SCALINGS)
    ordered = sorted(keys, key=lambda key: (scalings.index(key[0]), key[1]))
    present = list(dict.fromkeys(scaling for scaling, _ in ordered))
    return {key: row + _GAP * present.index(key[0]) for row, key in enumerate(ordered)}


def _label(scaling, rate):
    return f"{_SCALINGS[scaling]}, {rate:g}"


def _row(ax, y, verdicts, is_best):
    centred = {"ha": "center", "va": "center_baseline", "size": 10}
    for x, verdict in enumerate(verdicts.values()):
        symbol, face, ink = _LOOKS[verdict]
        ax.add_patch(Rectangle((x - 0.46, y - 0.45), 0.92, 0.9, facecolor=face))
        ax.text(x, y, symbol, color=ink, **centred)
    count = str(len(rules_by_claims.holding(verdicts)))
    weight = "bold" if is_best else "normal"
    ax.text(len(verdicts) + 0.1, y, count, weight=weight, **centred)
