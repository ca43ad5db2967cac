"""Short profiled runs on several numbers of ranks."""

import json
from pathlib import Path
from typing import Any, Optional

from chainer_crossbn.experiments import jobs, records
from chainer_crossbn.experiments.definitions import NORMALIZED, Scale, Setting
from chainer_crossbn.experiments.scaling import report

NAME = "scaling"
TITLE = "Time of an iteration by ranks and batch size (synthetic images)"


def planned(scale: Scale) -> list[jobs.Job]:
    """Return the runs in the order of running, networks side by side.

    The list is empty where the scale has none.
    """
    if not scale.scaling:
        return []
    numbers, batches = scale.scaling
    return [
        jobs.scaling_job(Setting(bn, batch), scale, ranks)
        for batch in batches
        for ranks in numbers
        for bn in NORMALIZED
    ]


def model(scale: Scale, out: str) -> Optional[dict[str, Any]]:
    """Evaluate the finished runs, and write the report on them beside them.

    Returns:
        dict or None: The content of ``scaling.json``; ``None`` where a run is missing,
        or the scale has none.
    """
    plan = planned(scale)
    if not plan or not all(records.read(job, out) for job in plan):
        return None
    folder = Path(out, NAME)
    report.write([str(job.directory(out)) for job in plan], folder)
    return json.loads((folder / f"{NAME}.json").read_text())
