"""Plain text tables of runs."""

import os

import numpy as np

from chainer_crossbn.plotting import groups as grouping
from chainer_crossbn.plotting import networks, style
from chainer_crossbn.plotting.papers import PAPER_SECONDS
from chainer_crossbn.runs.reading import TEST_ACCURACY, TRAIN_ACCURACY
from chainer_crossbn.text_tables import aligned

_HEAD = (
    "run",
    "network",
    "batch",
    "ranks",
    "epochs",
    "test %",
    "best %",
    "train %",
    "train s",
    "total s",
    "s/epoch",
    "ratio",
    "",
)
RUNS_NOTE = (
    "test, best, train: final and best test accuracy, final training accuracy; "
    "train s: training\niterations alone; s/epoch: their median; ratio: s/epoch over "
    "that of normalBN with the same\nbatch size and settings; 8 (2x4) ranks: 2 "
    "processes with 4 virtual ranks each"
)


def runs_table(groups):
    """One line a run.

    Args:
        groups (list): All the :class:`~chainer_crossbn.plotting.groups.Group` objects.

    Returns:
        str: The table, without a newline at its end.
    """
    timed = grouping.timed(groups)
    rows = [_row(run, group, timed) for group in groups for run in group.runs]
    return aligned([_HEAD, *rows], left=(0, 1, len(_HEAD) - 1))


def total_times_table(groups):
    """Total times beside the paper's Table 2.

    Args:
        groups (list): Groups of finished runs of one scale, a network each.

    Returns:
        str: The table, without a newline at its end.
    """
    ours = {group.network: group.middle("total_time")[0] for group in groups}
    rows = [("network", "total s", "ratio", "paper s", "paper ratio")]
    for network, seconds in ours.items():
        theirs = PAPER_SECONDS[network]
        rows.append(
            (
                networks.name(network),
                _decimal(seconds, 1),
                _decimal(seconds / ours["normal"], 3),
                str(theirs),
                _decimal(theirs / PAPER_SECONDS["normal"], 3),
            )
        )
    scale = grouping.common_scale(groups)
    return f"Table 2 ({scale})\n{aligned(rows, left=(0,))}"


def _row(run, group, timed):
    test = run.columns[TEST_ACCURACY] * 100
    numbers = test[~np.isnan(test)]
    wanted = run.arguments.get("epoch")
    ranks, ratio = str(run.n_ranks), None
    if run.virtual_ranks > 1:
        ranks += f" ({run.n_ranks // run.virtual_ranks}x{run.virtual_ranks})"
    else:
        ratio = grouping.time_ratio(run.epoch_time, group, timed)
    return (
        style.clean(os.path.basename(os.path.abspath(run.directory)), longest=64),
        networks.name(run.network),
        str(run.batch),
        ranks,
        f"{run.epochs_done}/{style.clean(wanted)}" if wanted else str(run.epochs_done),
        _decimal(test[-1], 2),
        _decimal(numbers.max() if len(numbers) else None, 2),
        _decimal(run.columns[TRAIN_ACCURACY][-1] * 100, 2),
        _decimal(run.train_time, 1),
        _decimal(run.total_time, 1),
        _decimal(run.epoch_time, 2),
        _decimal(ratio, 3),
        _state(run),
    )


def _state(run):
    states = [] if run.finished else ["unfinished"]
    if run.nan_epoch is not None:
        states.append(f"NaN loss from epoch {run.nan_epoch}")
    return ", ".join(states)


def _decimal(value, digits):
    return "-" if value is None or np.isnan(value) else f"{value:.{digits}f}"
