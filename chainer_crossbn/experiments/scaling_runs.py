"""Short profiled runs on several numbers of ranks."""

import json
from pathlib import Path

from chainer_crossbn.experiments import jobs, records
from chainer_crossbn.experiments.definitions import Setting
from chainer_crossbn.experiments.scaling import report

NAME = "scaling"
TITLE = "Time of an iteration by ranks and batch size (synthetic images)"


def planned(scale):
    """Return the runs.

    Args:
        scale (Scale): How large.

    Returns:
        list of Job: In the order in which they are to run, networks side by side;
        empty where the scale has none.
    """
    if not scale.scaling:
        return []
    numbers, batches = scale.scaling
    return [
        jobs.of_scaling(Setting(bn, batch), scale, ranks)
        for batch in batches
        for ranks in numbers
        for bn in ("normal", "multigpu")
    ]


def model(scale, out):
    """Evaluate the finished runs, and write the report on them beside them.

    Args:
        scale (Scale): How large.
        out (str): Directory that gathers all.

    Returns:
        dict or None: What ``scaling.json`` holds; ``None`` where a run is missing, or
        the scale has none.
    """
    plan = planned(scale)
    if not plan or not all(records.read(job, out) for job in plan):
        return None
    folder = Path(out, NAME)
    report.write([str(job.directory(out)) for job in plan], folder)
    return json.loads((folder / f"{NAME}.json").read_text())
