"""What profiled runs tell about an iteration."""

from typing import NamedTuple

import numpy as np

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.scaling import vgg16
from chainer_crossbn.plotting import networks, profiles, style
from chainer_crossbn.runs.reading import BrokenRun, find_runs, read_json

# Networks whose parameters and collectives are known here.
NETWORKS = ("none", "normal", "multigpu", "paper", "chainermn", "chainer")

_CLASSES = {"cifar10": 10, "cifar100": 100, "synthetic": 10}
_APART = ("BN wait", "BN transfer", "all-reduce wait", "all-reduce transfer")
# What all runs have to share.
_SHARED = ("model", "width", "fc_units", "dropout", "communicator")


class Observation(NamedTuple):
    """The mean iteration of a run, evaluation left out; times in seconds.

    Attributes:
        network (str): As :mod:`chainer_crossbn.plotting.networks` has them.
        batch (int): Images per rank.
        ranks (int): Number of ranks.
        threads (int): BLAS threads per rank.
        collectives (int): All-reduces of the normalizations.
        compute (float): What a rank does by itself: all but the next four.
        bn_wait (float): Waiting for the slowest rank in normalizations.
        bn_transfer (float): From then on.
        wait (float): Waiting in the all-reduce of the gradients.
        transfer (float): From then on.
    """

    network: str
    batch: int
    ranks: int
    threads: int
    collectives: int
    compute: float
    bn_wait: float
    bn_transfer: float
    wait: float
    transfer: float

    @property
    def time(self):
        """Seconds of the iteration."""
        return sum(self[5:])


class Scale(NamedTuple):
    """What all runs share.

    Attributes:
        cores (int): Cores that the ranks shared.
        width (int): Channels of the first stage.
        fc_units (int): Units of the hidden fully connected layers.
        n_class (int): Number of classes.
        words (str): The scale in words.
    """

    cores: int
    width: int
    fc_units: int
    n_class: int
    words: str

    def gradient_bytes(self, network):
        """Return the bytes of a network's gradients, which are float32."""
        return 4 * vgg16.parameters(
            self.width, self.fc_units, self.n_class, network != "none"
        )


def read(paths):
    """Read the profiled runs under some paths.

    Args:
        paths (list of str): Run directories, or directories above them.

    Returns:
        tuple: :class:`Scale`; a list of :class:`Observation`; and a list of (path,
        reason) for runs that are left out.

    Raises:
        UsageError: If there is none, or if the runs are not of one scale.
        FileNotFoundError: If a path does not exist.
    """
    runs, skipped = find_runs(paths)
    found = {}
    for run in runs:
        try:
            profile = profiles.read(run)
            if profile is None:
                raise BrokenRun("it has no profile.json; train with --profile")
            found[run] = _observe(run, profile)
        except BrokenRun as error:
            skipped.append((run.directory, str(error)))
    if not found:
        reasons = "".join(f": {path}: {reason}" for path, reason in skipped[:1])
        raise UsageError(f"no profiled run under {', '.join(paths)}{reasons}")
    return _scale(list(found)), list(found.values()), skipped


def _observe(run, profile):
    base = run.network.split(", ")[0]
    if base not in NETWORKS or run.arguments.get("bn_layers"):
        raise BrokenRun(f"the model does not cover {networks.name(run.network)}")
    if run.device != "CPU":
        raise BrokenRun("the model covers runs on CPUs alone")
    if run.virtual_ranks > 1:
        raise BrokenRun("the model does not cover virtual ranks")
    threads = run.arguments.get("threads")
    if not isinstance(threads, int):
        raise BrokenRun("args.json: argument 'threads' is missing or no count")
    seconds = {name: value / 1e3 for name, value in profile.components.items()}
    apart = [seconds.pop(name) for name in _APART]
    seconds.pop("evaluation")
    count = sum(rank == 0 and kind == "BN wait" for rank, kind, *_ in profile.events)
    return Observation(
        *(run.network, run.batch, run.n_ranks, threads, count),
        *(float(np.sum(list(seconds.values()))), *apart),
    )


def _scale(runs):
    found = {}
    for run in runs:
        cores = read_json(run.directory / "args.json").get("cores")
        if not isinstance(cores, int):
            raise UsageError(
                f"{run.directory}: args.json does not tell the number of cores, as "
                "runs of older versions; make the run anew"
            )
        values = {
            "dataset": run.dataset.get("name", run.arguments.get("dataset")),
            **{name: run.arguments.get(name) for name in _SHARED},
            "cores": cores,
        }
        for name, value in values.items():
            if found.setdefault(name, value) != value:
                raise UsageError(
                    "the runs are not of one scale: "
                    f"{style.setting(name, found[name])} and "
                    f"{style.setting(name, value)} ({run.directory})"
                )
    if found["model"] != "vgg16" or found["dataset"] not in _CLASSES:
        raise UsageError("the model covers VGG16 on CIFAR and synthetic images alone")
    if not all(isinstance(found[name], int) for name in ("width", "fc_units")):
        raise UsageError(f"{runs[0].directory}: args.json has no width or fc_units")
    names = ("model", "dataset", "width", "fc_units", "cores")
    return Scale(
        *(found["cores"], found["width"], found["fc_units"]),
        _CLASSES[found["dataset"]],
        ", ".join(style.setting(name, found[name]) for name in names),
    )
