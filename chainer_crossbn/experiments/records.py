"""What is there of a run, and what of it is kept."""

import json
import os
from pathlib import Path

from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs.files import replacing
from chainer_crossbn.runs.reading import BrokenRun, read_json, read_run

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
        run = read_run(directory / "log")
    except BrokenRun:
        return None
    if not (run.finished and (directory / "statistics.json").is_file()):
        return None
    if job.timed and run.virtual_ranks > 1:
        raise UsageError(f"{directory} has virtual ranks; its times don't count")
    _check(job, directory, run.arguments, run.n_ranks)
    return run


def _check(job, directory, arguments, n_ranks):
    wanted = {flag.replace("-", "_"): value for flag, value in job.flags}
    wanted["ranks"] = job.ranks
    found = {**arguments, "ranks": n_ranks}
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
        record = read_json(directory / "args.json")
        if not record.get("diverged"):
            return False
        _check(job, directory, record["arguments"], record["n_ranks"])
    except (BrokenRun, AttributeError, KeyError):
        return False
    return True


def accuracy(job, out):
    """Return the final test accuracy of a finished run; chance if it has diverged."""
    if has_diverged(job, out):
        return CHANCE
    return read(job, out).final_accuracy


def set_aside(job, out):
    """Rename the directory of a broken run, and return its new path."""
    directory = job.directory(out)
    n = 1
    while os.path.lexists(aside := Path(f"{directory}.broken-{n}")):
        n += 1
    os.rename(directory, aside)
    return aside


def strip(job, out):
    """Take out of ``args.json`` what tells of the machine's users and not of the run.

    These are the paths of the data and of the output, and the hosts and process
    numbers of the ranks, of which the number of nodes is kept.

    Args:
        job (Job): A finished run.
        out (str): Directory that gathers all.
    """
    path = job.directory(out) / "args.json"
    record = json.loads(path.read_text())
    record["arguments"].update(data=None, out=None)
    ranks = record.pop("ranks", None)
    if ranks:
        record["n_nodes"] = len({rank["host"] for rank in ranks})
    write(path, record)


def write(path, content):
    """Write a JSON file, whole or not at all.

    Args:
        path (pathlib.Path): Where to.
        content: What :func:`json.dumps` takes.
    """
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
