"""Where the time of iterations goes: bars, and a time line of the ranks."""

import json
from typing import Any, Optional

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from chainer_crossbn.plotting import groups as grouping
from chainer_crossbn.plotting import networks, style
from chainer_crossbn.plotting.curves import caption
from chainer_crossbn.plotting.groups import Group
from chainer_crossbn.runs.reading import BrokenRun, Run, read_json

FILE = "profile.json"
_BAR_INCHES = 0.3
_RANK_INCHES = 0.36
_LOOKS = {
    "data": {"facecolor": "#BBBBBB"},
    "forward": {"facecolor": "#56B4E9"},
    "backward": {"facecolor": "#0072B2"},
    "BN arithmetic": {"facecolor": "#F0E442"},
    "BN wait": {"facecolor": "#FFFFFF", "edgecolor": "#D55E00", "hatch": "//////"},
    "BN transfer": {"facecolor": "#D55E00"},
    "all-reduce wait": {
        "facecolor": "#FFFFFF",
        "edgecolor": "#009E73",
        "hatch": "//////",
    },
    "all-reduce transfer": {"facecolor": "#009E73"},
    "update": {"facecolor": "#CC79A7"},
    "evaluation": {"facecolor": "#777777"},
    "other": {"facecolor": "#222222"},
}
COMPONENTS = tuple(_LOOKS)
_NOTES = [
    "BN: normalizations; wait: until the slowest rank came; transfer: from then on",
    "bar: mean over ranks and iterations, without the first epoch where there are more",
]


class Profile:
    """The ``profile.json`` of a run.

    Args:
        content (dict): As :class:`chainer_crossbn.profiling.Profiler` has written it.

    Attributes:
        components (dict): Component -> milliseconds per iteration.
        events (list): Of one iteration: (rank, kind, layer, start, duration), in
            milliseconds.

    Raises:
        BrokenRun: If it is not what this package writes.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        try:
            epochs = content["epochs"][1:] or content["epochs"]
            counts = np.array([epoch["iterations"] for epoch in epochs], np.float64)
            table = np.array([epoch["components"] for epoch in epochs], np.float64)
            times = counts / counts.sum() @ (table / 1e3)
            if not np.all(np.isfinite(times)):
                raise ValueError
            by_name = dict(zip(content["components"], times.tolist()))
            self.components = {name: by_name[name] for name in COMPONENTS}
            names = content["timeline"]["layers"]
            self.events = [
                (int(rank), str(kind), str(names[layer]), start / 1e3, span / 1e3)
                for rank, kind, layer, start, span in content["timeline"]["events"]
            ]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise BrokenRun(f"{FILE} is not what train_cifar.py writes") from None
        if not self.events:
            raise BrokenRun(f"{FILE} has no time line")


# Pairs of a group and its list of pairs of a run and its profile.
Profiled = list[tuple[Group, list[tuple[Run, Profile]]]]


def read(run: Run) -> Optional[Profile]:
    """Return the profile of a run, or ``None`` if it has none.

    Raises:
        BrokenRun: If it can't be read.
    """
    path = run.directory / FILE
    return Profile(read_json(path)) if path.exists() else None


def read_all(groups: list[Group]) -> tuple[Profiled, list[tuple[Any, str]]]:
    """Read the profiles of groups of runs, those with virtual ranks left out.

    Returns:
        tuple: A list of pairs of a group and its list of pairs of a run and its
        profile, where there are any; and a list of (path, reason) for what can't be
        read.
    """
    profiled, skipped = [], []
    for group in grouping.timed(groups):
        pairs = []
        for run in group.runs:
            try:
                profile = read(run)
            except BrokenRun as error:
                skipped.append((run.directory, str(error)))
                continue
            if profile is not None:
                pairs.append((run, profile))
        if pairs:
            profiled.append((group, pairs))
    return profiled, skipped


def bars(profiled: Profiled) -> Figure:
    """Draw the parts of the time of an iteration, a panel for each batch size."""
    groups = [group for group, _ in profiled]
    names = grouping.differences(groups)
    panels = {}
    for group, pairs in profiled:
        panels.setdefault(group.batch, []).append((group, pairs))
    height = _BAR_INCHES * len(profiled) + 0.7 * len(panels) + 1.7
    figure = Figure(figsize=(8.0, height), layout="constrained")
    figure.suptitle("Where the time of an iteration goes")
    axes = figure.subplots(
        len(panels),
        squeeze=False,
        gridspec_kw={"height_ratios": [len(panel) + 1 for panel in panels.values()]},
    )[:, 0]
    for ax, (batch, panel) in zip(axes, sorted(panels.items())):
        ax.set_title(f"batch size {batch}", loc="left")
        ax.grid(axis="y", visible=False)
        for place, (_, pairs) in enumerate(panel):
            left = 0
            for component, look in _LOOKS.items():
                width = np.mean([profile.components[component] for _, profile in pairs])
                ax.barh(place, width, 0.8, left, linewidth=0, **look)
                left += width
            ax.annotate(
                f"{left:,.1f} ms",
                (left, place),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
            )
        ax.set_yticks(range(len(panel)))
        ax.set_yticklabels([style.plain(_label(group, names)) for group, _ in panel])
        ax.set_ylim(len(panel) - 0.4, -0.6)
        ax.margins(x=0.12)
        ax.set_xlim(left=0)
    axes[-1].set_xlabel("Time of an iteration [ms]")
    figure.legend(
        handles=[Patch(label=name, **look) for name, look in _LOOKS.items()],
        loc="outside right center",
    )
    caption(figure, groups, _NOTES)
    return figure


def time_line(group: Group, profile: Profile) -> Figure:
    """Draw one iteration of a run, a row for each rank.

    Args:
        group (Group): The group of the run.
        profile (Profile): Its profile.
    """
    ranks = sorted({event[0] for event in profile.events})
    figure = Figure(
        figsize=(8.5, max(_RANK_INCHES * len(ranks), 1.2) + 1.3), layout="constrained"
    )
    figure.suptitle(f"One iteration of {style.plain(group.name)}, rank by rank")
    ax = figure.subplots()
    spans = {}
    for rank, kind, layer, start, span in profile.events:
        component = _component(kind, layer)
        if component:
            spans.setdefault((component, rank), []).append((start, span))
    # Communication last, as it is a part of the others.
    drawn = [name for name in _LOOKS if any(c == name for c, _ in spans)]
    for component in drawn:
        for rank in ranks:
            ax.broken_barh(
                spans.get((component, rank), []),
                (rank - 0.4, 0.8),
                linewidth=0,
                zorder=3 if "-reduce" in component or "BN" in component else 2,
                **_LOOKS[component],
            )
    ax.set_yticks(ranks)
    ax.set_ylim(len(ranks) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.grid(axis="y", visible=False)
    ax.set_ylabel("Rank")
    ax.set_xlabel("Time [ms]")
    figure.legend(
        handles=[Patch(label=name, **_LOOKS[name]) for name in drawn],
        loc="outside right center",
    )
    caption(figure, [group], [])
    return figure


def chrome_trace(profile: Profile, program: str) -> str:
    """Return a time line in Chrome's trace event format, as Perfetto reads it.

    Args:
        profile (Profile): Of a run.
        program (str): Name of the program that writes it.

    Returns:
        str: JSON; processes are the ranks, times in microseconds.
    """
    names = [
        {
            "name": "process_name",
            "ph": "M",
            "pid": rank,
            "args": {"name": f"rank {rank}"},
        }
        for rank in sorted({event[0] for event in profile.events})
    ]
    events = [
        {
            "name": f"{layer} {kind}".strip(),
            "cat": kind,
            "ph": "X",
            "pid": rank,
            "tid": 0,
            "ts": round(start * 1e3),
            "dur": round(span * 1e3),
        }
        for rank, kind, layer, start, span in profile.events
    ]
    trace = {"traceEvents": names + events, "otherData": {"program": program}}
    return json.dumps(trace, separators=(",", ":"))


def _component(kind: str, layer: str) -> Optional[str]:
    """Return the component that an event is drawn as, or None."""
    if kind in ("function", "gradient"):
        return "BN arithmetic" if "norm" in layer.split("/") else None
    return kind


def _label(group, names):
    settings = grouping.describe(group, names)
    label = networks.name(group.network)
    return f"{label}, {settings}" if settings else label
