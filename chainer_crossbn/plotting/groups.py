"""Put runs that differ only in their seed together."""

import json
from collections.abc import Collection, Iterable
from typing import Any, Optional

import numpy as np

from chainer_crossbn.plotting import networks, style
from chainer_crossbn.runs.options import OPTIONS
from chainer_crossbn.runs.reading import Run

# Options that do not separate runs, or that make a network or a batch size.
_NO_SETTINGS = frozenset(
    name
    for name, option in OPTIONS.items()
    if not option.separates_runs
    or option.legend is not None
    or name in ("bn", "batchsize")
)
_ASSUMED = {name: option.assumed for name, option in OPTIONS.items()}
_MAIN_SETTINGS = ("dataset", "model", "width", "ranks", "train_size", "epoch", "lr")


class Group:
    """The runs of one configuration, one per seed.

    Args:
        runs (list of Run): Runs with the same configuration.

    Attributes:
        network (str): As :mod:`~chainer_crossbn.runs.networks` names it.
        batch (int): Mini-batch size per rank.
        settings (dict): Everything else that distinguishes configurations.
    """

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.network = runs[0].network
        self.batch = runs[0].batch
        self.settings = settings_of(runs[0])

    @property
    def name(self) -> str:
        """Network and batch size, as figures name them."""
        return f"{networks.name(self.network)}, batch {self.batch}"

    @property
    def count(self) -> str:
        """The number of seeds, or of runs where several have the same seed."""
        seeds = {json.dumps(run.arguments.get("seed")) for run in self.runs}
        noun = "seed" if len(seeds) == len(self.runs) else "run"
        return f"{len(self.runs)} {noun}{'s' if len(self.runs) > 1 else ''}"

    def curve(self, key: str, x: str = "epoch") -> tuple[np.ndarray, ...]:
        """Return one quantity over the epochs, summarized over the seeds.

        Args:
            key (str): Column of the log to draw.
            x (str): Column to draw it against.

        Returns:
            tuple: Four float64 arrays with one value per epoch: x (the median over
            the seeds), and the median, minimum and maximum of the values, NaN left
            out (NaN where no value is left).
        """
        epochs = np.unique(np.concatenate([run.columns["epoch"] for run in self.runs]))
        values = np.ma.masked_all((2, len(self.runs), len(epochs)))
        for index, run in enumerate(self.runs):
            places = np.searchsorted(epochs, run.columns["epoch"])
            values[:, index, places] = run.columns[x], run.columns[key]
        xs, ys = np.ma.masked_invalid(values)
        summary = np.ma.median(xs, 0), np.ma.median(ys, 0), ys.min(0), ys.max(0)
        return tuple(part.filled(np.nan) for part in summary)

    def middle(self, quantity: str) -> tuple[float, float, float]:
        """Return median, minimum and maximum over the seeds of a property of runs."""
        values = [getattr(run, quantity) for run in self.runs]
        return float(np.median(values)), min(values), max(values)


def settings_of(run: Run) -> dict[str, Any]:
    """Return what distinguishes a run's configuration, besides network and batch size.

    Options that are None count as absent, so that runs recorded by versions with fewer
    options compare equal.
    """
    settings = {
        **_ASSUMED,
        **run.arguments,
        "ranks": run.n_ranks,
        "device": run.device or None,
        "dataset": run.dataset.get("name", run.arguments.get("dataset")),
        "checksum": run.dataset.get("checksum"),
    }
    return {
        name: value
        for name, value in settings.items()
        if name not in _NO_SETTINGS and value is not None
    }


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Return groups of runs, ordered by setting, batch size and network."""
    collected = {}
    for run in runs:
        key = (run.network, run.batch, identity(settings_of(run)))
        collected.setdefault(key, []).append(run)
    groups = [Group(members) for members in collected.values()]
    names = differences(groups)

    def order(group):
        values = [_natural(group.settings.get(name)) for name in names]
        return (values, group.batch, networks.rank(group.network))

    return sorted(groups, key=order)


def timed(groups: list[Group]) -> list[Group]:
    """Leave out runs with virtual ranks, whose times are not comparable."""
    kept = [[run for run in g.runs if run.virtual_ranks == 1] for g in groups]
    return [Group(runs) for runs in kept if runs]


def by_scale(groups: list[Group], ignored: Collection[str] = ()) -> list[list[Group]]:
    """Split groups by their settings, except those named in ``ignored``.

    Returns:
        list: Lists of groups that differ only in network and batch size.
    """
    scales = {}
    for group in groups:
        kept = {k: v for k, v in group.settings.items() if k not in ignored}
        scales.setdefault(identity(kept), []).append(group)
    return list(scales.values())


def by_model(groups: list[Group]) -> list[tuple[str, list[Group]]]:
    """Split groups by their model, as no figure shows more than one.

    Returns:
        list: Pairs of a suffix of the figures' file names (empty if there is only one
        model) and a list of groups.
    """
    models = {}
    for group in groups:
        models.setdefault(identity(group.settings.get("model")), []).append(group)
    if len(models) == 1:
        return [("", groups)]
    return [
        (
            f"-{style.slug(style.setting('model', members[0].settings.get('model')))}",
            members,
        )
        for members in models.values()
    ]


def time_ratio(seconds: float, group: Group, groups: list[Group]) -> Optional[float]:
    """Return the time per epoch as a multiple of normalBN's, or None without one.

    The normalBN group is the one that differs from ``group`` only in the network.
    ``groups`` are as :func:`timed` returns them.
    """
    for other in groups:
        same = (other.batch, other.settings) == (group.batch, group.settings)
        if other.network == "normal" and same:
            return seconds / other.middle("epoch_time")[0]
    return None


def differences(groups: list[Group]) -> list[str]:
    """Return the names of the settings in which groups differ, main ones first."""
    names = {name for group in groups for name in group.settings}
    differing = {
        name
        for name in names
        if len({identity(group.settings.get(name)) for group in groups}) > 1
    }
    if "dataset" in differing:
        differing.discard("checksum")
    main = [name for name in _MAIN_SETTINGS if name in differing]
    return main + sorted(differing.difference(main))


def describe(group: Group, names: Iterable[str]) -> str:
    """Describe some settings of a group, such as ``"8 ranks, width 16"``."""
    return ", ".join(style.setting(name, group.settings.get(name)) for name in names)


def common_scale(groups: list[Group]) -> str:
    """Describe the main settings that all groups share."""
    differing = differences(groups)
    shared = [
        name
        for name in _MAIN_SETTINGS
        if name not in differing and name in groups[0].settings
    ]
    return describe(groups[0], shared)


def median_of(groups: list[Group]) -> str:
    """Say what the medians of groups are over; empty if it is one seed."""
    counts = sorted({group.count for group in groups})
    return "" if counts == ["1 seed"] else f"median of {' or '.join(counts)}"


def identity(value: object) -> str:
    """Return a string that is equal for equal JSON values."""
    return json.dumps(value, sort_keys=True)


def _natural(value):
    if isinstance(value, (int, float)):
        return (0, value, "")
    return (1, 0, identity(value))
