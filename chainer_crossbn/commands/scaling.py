"""``python -m chainer_crossbn scaling``: tables from profiled runs."""

from pathlib import Path
from typing import Optional

from chainer_crossbn.commands.command_line import Parser, complain, conclude
from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.scaling import report

_PROGRAM = "chainer_crossbn scaling"


def main(argv: Optional[list[str]] = None) -> int:
    """Write the times of profiled runs, and the evaluation of claim 7.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status: 0, or 2 after an error of the user, which is one line on
        standard error; then nothing is written.
    """
    refusals = UsageError, FileNotFoundError
    return conclude(_PROGRAM, lambda: _run(_parser().parse_args(argv)), refusals)


def _parser():
    parser = Parser(
        prog=f"python -m {_PROGRAM}",
        description="Tabulate the times of iterations of profiled runs by ranks, and "
        "evaluate the paper's claim 7 (synchronizing takes the extra time) in a model "
        "of its machine.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run directory, or a directory above some",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where to write (default: the first PATH)"
    )
    return parser


def _run(arguments):
    folder = Path(arguments.out or arguments.paths[0])
    text, written, skipped = report.write(arguments.paths, folder)
    for path, reason in skipped:
        complain(_PROGRAM, f"skipped {path}: {reason}")
    print(text)
    print(f"wrote {' and '.join(map(str, written))}", flush=True)
