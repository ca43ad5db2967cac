"""The command line: run directories in, figures and tables out."""

import os
from pathlib import Path

from chainer_crossbn.commands.command_line import Parser, complain, conclude
from chainer_crossbn.errors import UsageError
from chainer_crossbn.plotting import bars, curves, files, papers, profiles, style, table
from chainer_crossbn.plotting.groups import by_model, group_runs, timed
from chainer_crossbn.runs.reading import find_runs


def main(argv=None):
    """Draw the figures of all the runs under the given paths.

    Args:
        argv (list of str): Arguments; those of the process if None.

    Returns:
        int: Exit status: 0, or 2 where the user asked for something that can't be done
        (said in one line on standard error).
    """
    refusals = UsageError, FileNotFoundError
    return conclude(files.PROGRAM, lambda: _run(_parser().parse_args(argv)), refusals)


def draw(groups):
    """Draw all the figures that the groups of runs give.

    Args:
        groups (list): :class:`~chainer_crossbn.plotting.groups.Group` objects.

    Returns:
        tuple: Pairs of a file name's stem and a :class:`matplotlib.figure.Figure`;
        and lines that say which times are not compared and which of the paper's
        figures are not drawn, and why.
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
    return drawn + of_paper, _untimed(groups) + missing


def draw_profiles(profiled):
    """Draw where the time goes, for runs with a profile.

    Args:
        profiled (list): As :func:`~chainer_crossbn.plotting.profiles.read_all` returns
            it.

    Returns:
        tuple: Pairs of a file name's stem and a :class:`matplotlib.figure.Figure`: bars
        of all groups of a model, and a time line of the first run of each; and pairs of
        a file's name and the text of a trace, for the same runs.
    """
    pairs_of = dict(profiled)
    drawn = [
        (
            f"profile{suffix}",
            profiles.bars([(group, pairs_of[group]) for group in members]),
        )
        for suffix, members in by_model(list(pairs_of))
    ]
    traces = []
    for group, pairs in profiled:
        run, profile = pairs[0]
        name = style.slug(run.directory.name)
        drawn.append((f"timeline-{name}", profiles.time_line(group, profile)))
        trace = profiles.chrome_trace(profile, files.SIGNATURE.decode())
        traces.append((f"trace-{name}.json", trace))
    return drawn, traces


def _untimed(groups):
    count = sum(run.virtual_ranks > 1 for group in groups for run in group.runs)
    if not count:
        return []
    runs = "1 run has" if count == 1 else f"{count} runs have"
    return [f"times not compared: {runs} virtual ranks"]


def _run(arguments):
    runs, skipped = find_runs(arguments.paths)
    if not runs:
        raise UsageError(_no_run(arguments.paths, skipped))
    folder = Path(arguments.out) if arguments.out else _beside(runs)
    groups = group_runs(runs)
    profiled, unread = profiles.read_all(groups)
    with style.applied():
        drawn, missing = draw(groups)
        of_profiles, traces = draw_profiles(profiled)
        try:
            written = files.write(drawn + of_profiles, folder, texts=traces)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(
                f"can't write into {folder}: {reason}; choose another --out"
            ) from None
    for path, reason in skipped:
        complain(files.PROGRAM, f"skipped {path}: {reason}")
    for path, reason in unread:
        complain(files.PROGRAM, f"skipped the profile of {path}: {reason}")
    _report(groups, written, missing)


def _no_run(paths, skipped):
    if not skipped:
        return (
            f"no run under {', '.join(paths)}; give directories that train_cifar.py "
            "has written"
        )
    path, reason = skipped[0]
    others = f" (and {len(skipped) - 1} others)" if len(skipped) > 1 else ""
    return (
        f"no run to draw: {path}: {reason}{others}; give runs that have logged an "
        "epoch at least"
    )


def _parser():
    parser = Parser(
        prog=files.PROGRAM,
        description="Draw loss, accuracy and time of training runs, and the paper's "
        "figures where their runs are there.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run directory, or a directory above some",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where to write (default: beside the runs)"
    )
    return parser


def _beside(runs):
    """The directory that all the runs lie in."""
    parents = [os.path.dirname(os.path.abspath(run.directory)) for run in runs]
    common = Path(os.path.commonpath(parents))
    if common == common.parent:
        raise UsageError("the runs have no directory in common; name one with --out")
    here = Path.cwd()
    return common.relative_to(here) if here in (common, *common.parents) else common


def _report(groups, written, missing):
    _say(table.runs_table(groups))
    _say(f"\n{table.RUNS_NOTE}")
    for scale in papers.table2_scales(groups)[0]:
        _say(f"\n{table.total_times_table(scale)}")
    _say("")
    for line in missing:
        _say(line)
    for first, *others in written:
        _say(" and ".join([f"wrote {first}", *(path.name for path in others)]))


def _say(text):
    """Print lines, whatever a file's name in them holds."""
    for line in text.split("\n"):
        shown = "".join(sign if sign.isprintable() else "?" for sign in line)
        print(shown, flush=True)
