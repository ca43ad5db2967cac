"""Mean iterations of profiled runs."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from chainer_crossbn.errors import UsageError
from chainer_crossbn.plotting import networks, profiles, style
from chainer_crossbn.runs.reading import BrokenRun, Run, find_runs, read_json

_COLLECTIVES = ("BN wait", "BN transfer", "all-reduce wait", "all-reduce transfer")
# Arguments that all runs have to share.
_SHARED = ("model", "width", "fc_units", "dropout", "communicator", "threads")
_NAMED = ("model", "dataset", "width", "fc_units", "cores")


class Observation(NamedTuple):
    """The mean iteration of a run, without evaluation; times in seconds.

    Attributes:
        network (str): As :mod:`chainer_crossbn.plotting.networks` names it.
        batch (int): Images per rank.
        ranks (int): Number of ranks.
        cores (int): Cores that the ranks share.
        collectives (int): All-reduces of the normalizations.
        compute (float): Computing of a rank.
        bn_wait (float): Waiting for the slowest rank in the normalizations.
        time (float): The iteration.
    """

    network: str
    batch: int
    ranks: int
    cores: int
    collectives: int
    compute: float
    bn_wait: float
    time: float


def read(paths: list[str]) -> tuple[str, list[Observation], list[tuple[Path, str]]]:
    """Read the profiled runs under some paths.

    Args:
        paths (list of str): Run directories, or directories above them.

    Returns:
        tuple: The scale that the runs share, as text; a list of :class:`Observation`,
        sorted by network, batch size and ranks; and a list of (path, reason) for runs
        that are left out.

    Raises:
        UsageError: If there is no profiled run, or if the runs are not of one scale.
        FileNotFoundError: If a path does not exist.
    """
    runs, skipped = find_runs(paths)
    scale, observations = {}, []
    for run in runs:
        try:
            observation = _observe(run)
        except BrokenRun as error:
            skipped.append((run.directory, str(error)))
            continue
        _check_scale(scale, run, observation.cores)
        observations.append(observation)
    if not observations:
        reasons = "".join(f": {path}: {reason}" for path, reason in skipped[:1])
        raise UsageError(f"no profiled run under {', '.join(paths)}{reasons}")
    if scale["model"] != "vgg16":
        raise UsageError("only runs of VGG16 are supported")
    observations.sort(key=lambda each: (networks.rank(each.network), *each))
    text = ", ".join(style.setting(name, scale[name]) for name in _NAMED)
    return text, observations, skipped


def _observe(run: Run) -> Observation:
    profile = profiles.read(run)
    if profile is None:
        raise BrokenRun("it has no profile.json; train with --profile")
    if run.device != "CPU":
        raise BrokenRun("only runs on CPUs are supported")
    if run.virtual_ranks > 1:
        raise BrokenRun("runs with virtual ranks are not supported")
    cores = read_json(run.directory / "args.json").get("cores")
    if not isinstance(cores, int):
        raise BrokenRun("args.json has no number of cores; train again")
    seconds = {name: value / 1e3 for name, value in profile.components.items()}
    collective = {name: seconds.pop(name) for name in _COLLECTIVES}
    del seconds["evaluation"]
    compute = float(np.sum(list(seconds.values())))
    kinds = [kind for rank, kind, *_ in profile.events if rank == 0]
    return Observation(
        network=run.network,
        batch=run.batch,
        ranks=run.n_ranks,
        cores=cores,
        collectives=kinds.count("BN wait"),
        compute=compute,
        bn_wait=collective["BN wait"],
        time=compute + sum(collective.values()),
    )


def _check_scale(scale: dict, run: Run, cores: int) -> None:
    """Check that a run is of the scale of those before it, which it completes."""
    values = {
        "dataset": run.dataset.get("name", run.arguments.get("dataset")),
        **{name: run.arguments.get(name) for name in _SHARED},
        "cores": cores,
    }
    for name, value in values.items():
        if scale.setdefault(name, value) != value:
            raise UsageError(
                f"the runs are not of one scale: {style.setting(name, scale[name])} "
                f"and {style.setting(name, value)} ({run.directory})"
            )
