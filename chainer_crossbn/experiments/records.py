"""What is there of a run."""

import os

from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs.reading import BrokenRun, read_record, read_run

MISSING, BROKEN, FINISHED = "missing", "broken", "finished"
CHANCE = 0.1  # of ten classes


def state(job, out):
    """Tell how far a run is.

    Args:
        job (Job): The run.
        out (str): Directory that gathers all.

    Returns:
        str: :data:`MISSING`, :data:`BROKEN` (it has begun, and can't go on) or
        :data:`FINISHED` (its log has the last epoch, and ``statistics.json`` is there;
        or it has diverged, and may end early).

    Raises:
        UsageError: If its directory holds another run.
    """
    directory = job.directory(out)
    if not os.path.lexists(directory):
        return MISSING
    done = has_diverged(job, out) or read(job, out) is not None
    return FINISHED if done else BROKEN


def read(job, out):
    """Read a finished run.

    Args:
        job (Job): The run.
        out (str): Directory that gathers all.

    Returns:
        chainer_crossbn.runs.reading.Run or None: The run, if it is finished.

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


def _check(job, directory, record):
    wanted = {flag.replace("-", "_"): value for flag, value in job.flags}
    wanted["ranks"] = job.ranks
    found = {**record["arguments"], "ranks": record["n_ranks"]}
    for name, value in wanted.items():
        if found.get(name) != value:
            raise UsageError(
                f"{directory} was made with {name} {found.get(name)}, not {value}; "
                "choose another --out"
            )


def has_diverged(job, out):
    """Tell whether a run that may end early has ended at a loss that is not finite.

    Args:
        job (Job): The run.
        out (str): Directory that gathers all.

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


def accuracy(job, out):
    """Return the final test accuracy of a finished run; chance if it has diverged."""
    if has_diverged(job, out):
        return CHANCE
    return read(job, out).final_accuracy
