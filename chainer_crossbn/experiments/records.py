"""The run directory of a job: whether its run is there, and is the right one."""

import os
from pathlib import Path
from typing import Any, Optional

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.jobs import Job
from chainer_crossbn.runs.reading import BrokenRun, Run, read_record, read_run

MISSING, BROKEN, FINISHED = "missing", "broken", "finished"
CHANCE = 0.1  # of ten classes


def state(job: Job, out: str) -> str:
    """Return the state of a run.

    Returns:
        str: :data:`MISSING`, :data:`BROKEN` (it has started, and can't be resumed) or
        :data:`FINISHED` (its log has the last epoch, and ``statistics.json`` is there;
        or it has diverged, and may end early).

    Raises:
        UsageError: If its directory holds another run.
    """
    if not os.path.lexists(job.directory(out)):
        return MISSING
    done = has_diverged(job, out) or read(job, out) is not None
    return FINISHED if done else BROKEN


def read(job: Job, out: str) -> Optional[Run]:
    """Read a run, or return ``None`` if it is not finished.

    Raises:
        UsageError: If its directory holds another run.
    """
    directory = job.directory(out)
    try:
        run = read_run(directory)
    except BrokenRun:
        return None
    if not (run.finished and (directory / "statistics.json").is_file()):
        return None
    if job.timed and run.virtual_ranks > 1:
        raise UsageError(f"{directory} has virtual ranks; its times don't count")
    _check(job, directory, run.record)
    return run


def has_diverged(job: Job, out: str) -> bool:
    """Return whether a run that may end early ended because its loss is not finite.

    Raises:
        UsageError: If its directory holds another run.
    """
    if not job.ends_early:
        return False
    directory = job.directory(out)
    try:
        record = read_record(directory)
    except BrokenRun:
        return False
    if not record.get("diverged"):
        return False
    _check(job, directory, record)
    return True


def accuracy(job: Job, out: str) -> float:
    """Return the final test accuracy of a finished run; chance if it has diverged."""
    if has_diverged(job, out):
        return CHANCE
    return read(job, out).final_accuracy


def _check(job: Job, directory: Path, record: dict[str, Any]) -> None:
    expected = {flag.replace("-", "_"): value for flag, value in job.flags}
    expected["ranks"] = job.ranks
    recorded = {**record["arguments"], "ranks": record["n_ranks"]}
    for name, value in expected.items():
        if recorded.get(name) != value:
            raise UsageError(
                f"{directory} was made with {name} {recorded.get(name)}, not {value}; "
                "choose another --out"
            )
