"""The command line of ``plot.py``: draw figures and print tables of runs."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from matplotlib.figure import Figure

from chainer_crossbn.commands.command_line import (
    Parser,
    add_paths,
    complain,
    conclude,
)
from chainer_crossbn.errors import UsageError
from chainer_crossbn.plotting import bars, curves, files, papers, profiles, style, table
from chainer_crossbn.plotting.groups import Group, by_model, group_runs, timed
from chainer_crossbn.plotting.profiles import Profiled
from chainer_crossbn.runs.reading import Run, find_runs


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Draw the figures of all the runs under the given paths.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status: 0, or 2 if it can't be done (standard error says why in one
        line).
    """
    refusals = UsageError, FileNotFoundError
    return conclude(files.PROGRAM, lambda: _run(_parser().parse_args(argv)), refusals)


def draw(groups: list[Group]) -> tuple[list[tuple[str, Figure]], list[str]]:
    """Draw all figures of groups of runs.

    Args:
        groups (list of Group): The groups.

    Returns:
        tuple: Pairs of a file name's stem and a figure; and lines that say which times
        are not compared and which of the paper's figures are not drawn, and why.
    """
    drawn = []
    for suffix, members in by_model(groups):
        drawn += [
            (f"loss{suffix}", curves.one_quantity(members, "loss", "Loss")),
            (f"accuracy{suffix}", curves.one_quantity(members, "accuracy", "Accuracy")),
        ]
        if with_times := timed(members):
            title = "Accuracy against time"
            figure = curves.one_quantity(with_times, "accuracy", title, "train_time")
            drawn += [
                (f"accuracy_time{suffix}", figure),
                (f"epoch_time{suffix}", bars.epoch_times(with_times)),
            ]
    of_paper, missing = papers.draw(groups)
    n_virtual = sum(run.virtual_ranks > 1 for group in groups for run in group.runs)
    if n_virtual:
        runs = "1 run has" if n_virtual == 1 else f"{n_virtual} runs have"
        missing.insert(0, f"times not compared: {runs} virtual ranks")
    return drawn + of_paper, missing


def draw_profiles(
    profiled: Profiled,
) -> tuple[list[tuple[str, Figure]], list[tuple[str, str]]]:
    """Draw where the time goes, for runs with a profile.

    Args:
        profiled (list): As :func:`~chainer_crossbn.plotting.profiles.read_all` returns
            it.

    Returns:
        tuple: Pairs of a file name's stem and a figure: bars of all groups of a model,
        and a time line of the first run of each; and pairs of a file name and the text
        of a trace, for the same runs.
    """
    pairs_of = dict(profiled)
    drawn = []
    for suffix, members in by_model(list(pairs_of)):
        figure = profiles.bars([(group, pairs_of[group]) for group in members])
        drawn.append((f"profile{suffix}", figure))
    traces = []
    for group, pairs in profiled:
        run, profile = pairs[0]
        name = style.slug(run.directory.name)
        drawn.append((f"timeline-{name}", profiles.time_line(group, profile)))
        trace = profiles.chrome_trace(profile, files.SIGNATURE.decode())
        traces.append((f"trace-{name}.json", trace))
    return drawn, traces


def _run(arguments: argparse.Namespace) -> None:
    runs, skipped = find_runs(arguments.paths)
    if not runs:
        raise UsageError(_no_run(arguments.paths, skipped))
    folder = Path(arguments.out) if arguments.out else _beside(runs)
    groups = group_runs(runs)
    profiled, unread = profiles.read_all(groups)
    with style.applied():
        drawn, missing = draw(groups)
        of_profiles, traces = draw_profiles(profiled)
        written = files.write(drawn + of_profiles, folder, texts=traces)
    for path, reason in skipped:
        complain(files.PROGRAM, f"skipped {path}: {reason}")
    for path, reason in unread:
        complain(files.PROGRAM, f"skipped the profile of {path}: {reason}")
    _report(groups, written, missing)


def _no_run(paths: list[str], skipped: list[tuple[Path, str]]) -> str:
    if not skipped:
        return (
            f"no run under {', '.join(paths)}; give directories that train_cifar.py "
            "has written"
        )
    path, reason = skipped[0]
    others = f" (and {len(skipped) - 1} others)" if len(skipped) > 1 else ""
    return (
        f"no run to draw: {path}: {reason}{others}; give runs that have logged at "
        "least one epoch"
    )


def _parser():
    parser = Parser(
        prog=files.PROGRAM,
        description="Draw loss, accuracy and time of training runs, and the figures of "
        "the paper that there are runs for.",
    )
    add_paths(parser, default_out="beside the runs")
    return parser


def _beside(runs: list[Run]) -> Path:
    """Return the directory that contains all runs."""
    parents = [os.path.dirname(os.path.abspath(run.directory)) for run in runs]
    common = Path(os.path.commonpath(parents))
    if common == common.parent:
        raise UsageError("the runs have no directory in common; name one with --out")
    here = Path.cwd()
    return common.relative_to(here) if here in (common, *common.parents) else common


def _report(groups: list[Group], written: list[list[Path]], missing: list[str]) -> None:
    _print(table.runs_table(groups))
    _print(f"\n{table.RUNS_NOTE}")
    for scale in papers.table2_scales(groups)[0]:
        _print(f"\n{table.total_times_table(scale)}")
    for line in ("", *missing):
        _print(line)
    for first, *others in written:
        _print(" and ".join([f"wrote {first}", *(path.name for path in others)]))


def _print(text: str) -> None:
    """Print lines, with unprintable characters of file names as question marks."""
    for line in text.split("\n"):
        shown = "".join(sign if sign.isprintable() else "?" for sign in line)
        print(shown, flush=True)
