"""The command line: run directories in, figures and tables out."""

import argparse
import os
import sys
from pathlib import Path

from chainer_crossbn.plotting import bars, curves, papers, style, table
from chainer_crossbn.plotting.groups import group_runs
from chainer_crossbn.plotting.runs import find_runs

_DPI = 150
_PROGRAM = "plot.py"


def main(argv=None):
    """Draw the figures of all the runs under the given paths.

    Args:
        argv (list of str): Arguments; those of the process if None.

    Returns:
        int: Exit status; 2 if a path is missing, no run is found or the figures
        cannot be written.
    """
    arguments = _parser().parse_args(argv)
    try:
        runs, skipped = find_runs(arguments.paths)
    except FileNotFoundError as error:
        return _fail(error)
    for path, reason in skipped:
        _say(f"{_PROGRAM}: skipped {path}: {reason}", sys.stderr)
    if not runs:
        return _fail(f"no run under {', '.join(arguments.paths)}")
    folder = Path(arguments.out) if arguments.out else _beside(runs)
    if folder is None:
        return _fail("the runs have no directory in common; name one with --out")
    groups = group_runs(runs)
    try:
        with style.applied():
            drawn, missing = draw(groups)
            written = _write(drawn, folder)
    except OSError as error:
        return _fail(f"cannot write into {folder}: {error.strerror or error}")
    _report(groups, written, missing)
    return 0


def draw(groups):
    """Draw all the figures that the groups of runs give.

    Args:
        groups (list): :class:`~chainer_crossbn.plotting.groups.Group` objects.

    Returns:
        tuple: Pairs of a file name's stem and a :class:`matplotlib.figure.Figure`;
        and lines that say which of the paper's figures are not drawn, and why.
    """
    drawn = [
        *_numbered("loss", curves.pages(groups, "loss", "Loss")),
        *_numbered("accuracy", curves.pages(groups, "accuracy", "Accuracy")),
        *_numbered(
            "accuracy_time",
            curves.pages(groups, "accuracy", "Accuracy against time", "train_time"),
        ),
        ("epoch_time", bars.epoch_times(groups)),
    ]
    of_paper, missing = papers.draw(groups)
    return drawn + of_paper, missing


def _parser():
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Draw loss, accuracy and time of training runs, and the paper's "
        "figures where their runs are there.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run directory, a directory above some, or a log file",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where to write (default: beside the runs)"
    )
    return parser


def _beside(runs):
    """The directory that all the runs lie in; None if that is the root of all."""
    parents = [os.path.dirname(os.path.abspath(run.directory)) for run in runs]
    common = Path(os.path.commonpath(parents))
    if common == common.parent:
        return None
    here = Path.cwd()
    return common.relative_to(here) if here in (common, *common.parents) else common


def _numbered(name, figures):
    """Name the pages of a figure: ``loss``, ``loss-2``, ..."""
    return [
        (name if page == 1 else f"{name}-{page}", figure)
        for page, figure in enumerate(figures, start=1)
    ]


def _write(drawn, folder):
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in drawn:
        # Without a date the same runs give the same bytes.
        for suffix, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
            target = folder / f"{name}.{suffix}"
            _save(figure, target, format=suffix, metadata=metadata)
            written.append(target)
    return written


def _save(figure, target, **options):
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, dpi=_DPI, **options)
        os.replace(temporary, target)
    finally:
        if temporary.exists():
            temporary.unlink()


def _report(groups, written, missing):
    _say(table.runs_table(groups))
    _say(f"\n{table.RUNS_NOTE}")
    for scale in papers.table2_scales(groups)[0]:
        _say(f"\n{table.total_times_table(scale)}")
    _say("")
    for line in missing:
        _say(line)
    for png, pdf in zip(written[::2], written[1::2]):
        _say(f"wrote {png} and {pdf.name}")


def _fail(message):
    _say(f"{_PROGRAM}: {message}", sys.stderr)
    return 2


def _say(text, stream=None):
    """Print text, whatever a file's name holds and the terminal can show."""
    stream = stream or sys.stdout
    lines = (
        "".join(sign if sign.isprintable() else "?" for sign in line)
        for line in text.split("\n")
    )
    encoding = stream.encoding or "utf-8"
    shown = "\n".join(lines).encode(encoding, "backslashreplace")
    print(shown.decode(encoding), file=stream)
