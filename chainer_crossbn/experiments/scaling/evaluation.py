"""From profiled runs to the files that tell what the model says."""

import json

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.scaling import (
    checks,
    extrapolation,
    figure,
    model,
    observations,
    report,
)
from chainer_crossbn.experiments.scaling.synchronization import claim7, relative_skew
from chainer_crossbn.plotting import files, style

NAME = "scaling"


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
