"""The command line: directories of profiled runs in, tables and a figure out."""

import json
from pathlib import Path

from chainer_crossbn.command_line import Parser, UsageError, complain, conclude
from chainer_crossbn.plotting import files, style
from chainer_crossbn.scaling import (
    checks,
    extrapolation,
    figure,
    model,
    observations,
    report,
)
from chainer_crossbn.scaling.synchronization import claim7, relative_skew

_PROGRAM = "chainer_crossbn.scaling"
NAME = "scaling"


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


def write(paths, folder):
    """Fit the model to profiled runs, and write its tables and figure.

    Args:
        paths (list of str): Run directories, or directories above them.
        folder (pathlib.Path): Where to; made if need be.

    Returns:
        tuple: The text of ``scaling.md``; the files, as
        :func:`chainer_crossbn.plotting.files.write` returns them; and a list of (path,
        reason) for runs that were left out.

    Raises:
        UsageError: If there is no profiled run, if they are not of one scale, or if the
            files can't be written.
        FileNotFoundError: If a path does not exist.
    """
    scale, seen, skipped = observations.read(paths)
    fitted = model.fit(seen, scale)
    skew = relative_skew(fitted)
    findings = report.Findings(
        scale=scale,
        model=fitted,
        checks=checks.check(seen, scale),
        extrapolated=extrapolation.extrapolate(fitted, scale),
        claim7=claim7(skew) if skew else None,
    )
    text = report.text(findings)
    texts = [
        (f"{NAME}.md", text),
        (f"{NAME}.json", json.dumps(_rounded(report.data(findings)), indent=1) + "\n"),
    ]
    drawn = []
    with style.applied():
        if findings.extrapolated:
            drawn.append((NAME, figure.draw(findings.extrapolated, scale)))
        try:
            written = files.write(drawn, folder, texts=texts)
        except OSError as error:
            raise UsageError(
                f"can't write into {folder}: {error.strerror or error}; choose another "
                "--out"
            ) from None
    return text, written, skipped


def _rounded(values):
    """Leave out the digits in which BLAS differs from machine to machine."""
    text = json.dumps(values)
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.12g}"))


def _run(arguments):
    folder = Path(arguments.out or arguments.paths[0])
    text, written, skipped = write(arguments.paths, folder)
    for path, reason in skipped:
        complain(_PROGRAM, f"skipped {path}: {reason}")
    print(text, flush=True)
    for first, *others in written:
        wrote = [f"wrote {first}", *(path.name for path in others)]
        print(" and ".join(wrote), flush=True)
