"""What is there of a run, and what of it is kept."""

import json
import os
from pathlib import Path

from chainer_crossbn.command_line import UsageError
from chainer_crossbn.files import replacing
from chainer_crossbn.plotting.runs import BrokenRun, read_run

MISSING, BROKEN, FINISHED = "missing", "broken", "finished"


def state(job, out):
    """Tell how far a run is.

    Args:
        job (Job): The run.
        out (str): Directory that gathers all.

    Returns:
        str: :data:`MISSING`, :data:`BROKEN` (it has begun, and can't go on) or
        :data:`FINISHED` (its log has the last epoch, and ``statistics.json`` is there).

    Raises:
        UsageError: If its directory holds another run.
    """
    directory = job.directory(out)
    if not os.path.lexists(directory):
        return MISSING
    return FINISHED if read(job, out) else BROKEN


def read(job, out):
    """Read a finished run.

    Args:
        job (Job): The run.
        out (str): Directory that gathers all.

    Returns:
        chainer_crossbn.plotting.runs.Run or None: The run, if it is finished.

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
    wanted = {flag.replace("-", "_"): value for flag, value in job.flags}
    wanted["ranks"] = job.ranks
    found = {**run.arguments, "ranks": run.n_ranks}
    for name, value in wanted.items():
        if found.get(name) != value:
            raise UsageError(
                f"{directory} was made with {name} {found.get(name)}, not {value}; "
                "choose another --out"
            )
    return run


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
