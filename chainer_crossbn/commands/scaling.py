"""The command line: directories of profiled runs in, tables and a figure out."""

from pathlib import Path

from chainer_crossbn.commands.command_line import Parser, complain, conclude
from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.scaling import evaluation

_PROGRAM = "chainer_crossbn scaling"


def main(argv=None):
    """Fit the model to profiled runs, and write what it says.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status: 0, or 2 where the user asked for something that can't be done
        (said in one line on standard error, and nothing is written).
    """
    refusals = UsageError, FileNotFoundError
    return conclude(_PROGRAM, lambda: _run(_parser().parse_args(argv)), refusals)


def _parser():
    parser = Parser(
        prog=f"python -m {_PROGRAM}",
        description="Model the time of an iteration from profiled runs, check it, and "
        "extrapolate it to more ranks.",
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
    text, written, skipped = evaluation.write(arguments.paths, folder)
    for path, reason in skipped:
        complain(_PROGRAM, f"skipped {path}: {reason}")
    print(text, flush=True)
    for first, *others in written:
        wrote = [f"wrote {first}", *(path.name for path in others)]
        print(" and ".join(wrote), flush=True)
