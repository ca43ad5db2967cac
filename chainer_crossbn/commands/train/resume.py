"""Decide whether a command line starts or continues a run, and with which options."""

import os
from argparse import Namespace
from typing import NamedTuple, Optional

from chainer_crossbn.commands.train import options, threads
from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs import run_directory
from chainer_crossbn.runs.options import OPTIONS, OnResume, flag
from chainer_crossbn.training.snapshots import storage

# Differences in these are reported first, because others follow from them.
_FIRST = ("bn", "model", "dataset")
_COMPARED = [o.name for o in OPTIONS.values() if o.on_resume is OnResume.COMPARE]
_TAKEN = [o.name for o in OPTIONS.values() if o.on_resume is not OnResume.IGNORE]


class Plan(NamedTuple):
    """A run to start or to continue.

    Attributes:
        args (argparse.Namespace): Completed options.
        path (str): The run directory.
        record (dict or None): Content of ``args.json`` of the run to continue; ``None``
            for a new run.
        finished (bool): Whether there is nothing left to do.
    """

    args: Namespace
    path: str
    record: Optional[dict]
    finished: bool = False


def plan(argv: list, n_processes: int) -> Plan:
    """Return what a command line asks for; nothing is written yet.

    Args:
        argv (list of str): Arguments.
        n_processes (int): Number of processes.

    Raises:
        UsageError: If it can't be done, or if the run to continue has other options.
    """
    given = options.parse_given(argv)
    if given.evaluate is not None:
        return _plan_evaluation(argv, os.path.normpath(given.evaluate), n_processes)
    if given.resume in (None, "auto"):
        args = _complete(options.parse(argv), n_processes)
        path = run_directory.run_path(args.out, args.name)
        if given.resume is None or not _has_begun(path):
            return Plan(args, path, None)
    else:
        path = os.path.normpath(given.resume)
        if not os.path.isdir(path):
            raise UsageError(f"--resume {path}: no such run directory")
    record = run_directory.read_arguments(path)
    recorded = record["arguments"]
    for name in _FIRST:
        if getattr(given, name) is not None:
            _compare(path, name, recorded[name], getattr(given, name))
    device = _device_flags(record, given)
    args = options.parse([*_as_flags(path, recorded), *device, *argv])
    args = _complete(args, n_processes)
    n_ranks = n_processes * args.virtual_ranks
    for name in _COMPARED:
        if name == "bn_group_size" and n_ranks != record["n_ranks"]:
            continue
        value = getattr(args, name)
        before = recorded.get(name, OPTIONS[name].assumed)
        if name == "epoch" and _trains_on(args, recorded):
            continue
        _compare(path, name, before, value)
    args.out, args.name = os.path.split(path)
    finished = run_directory.is_finished(path) and not _trains_on(args, recorded)
    return Plan(args, path, record, finished)


def _trains_on(args, recorded):
    """Return whether a run gets more epochs than it was started with."""
    before = recorded.get("epoch")
    # With more epochs, a cosine schedule differs from the first epoch on.
    return (
        isinstance(before, int) and args.epoch > before and args.lr_schedule != "cosine"
    )


def _plan_evaluation(argv, path, n_processes):
    if not os.path.isdir(path):
        raise UsageError(f"--evaluate {path}: no such run directory")
    record = run_directory.read_arguments(path)
    args = options.parse([*_as_flags(path, record["arguments"]), *argv])
    # The model has one set of running statistics, that of all ranks.
    args.virtual_ranks, args.bn_group_size = 1, None
    return Plan(_complete(args, n_processes), path, record)


def check_data(path: str, record: dict, name: str, checksum: str) -> None:
    """Check that a run continues with the data that it started with.

    Args:
        path (str): The run directory.
        record (dict): Content of its ``args.json``.
        name (str): Name of the data.
        checksum (str): Checksum of the data.

    Raises:
        UsageError: If it does not.
    """
    recorded = record["dataset"].get("checksum")
    if recorded != checksum:
        raise UsageError(
            f"{path} was made with other data: the checksum of {name} was {recorded}, "
            f"not {checksum}"
        )


def differences(
    record: dict, manifest: dict, versions: dict, n_processes: int, virtual_ranks: int
) -> list:
    """Describe why a resumed run may differ from an uninterrupted one.

    Args:
        record (dict): Content of its ``args.json``.
        manifest (dict): Manifest of the snapshot.
        versions (dict): Present versions, as in ``args.json``.
        n_processes (int): Number of processes.
        virtual_ranks (int): Ranks per process.

    Returns:
        list of str: Lines.
    """
    ranks = _ranks(n_processes * virtual_ranks, virtual_ranks)
    ranks_before = _ranks(manifest["n_ranks"], manifest.get("virtual_ranks", 1))
    compared = [
        (ranks_before, ranks, ranks_before != ranks),
        *(
            (f"{name} {version}", versions.get(name), versions.get(name) != version)
            for name, version in record["versions"].items()
        ),
    ]
    return [
        f"the snapshot was taken with {before}, and the run continues with {now}: "
        "results will not be bit-for-bit identical to those of an uninterrupted run"
        for before, now, differs in compared
        if differs
    ]


def extension(args: Namespace, record: dict) -> dict:
    """Return what ``args.json`` contains of a run that gets more epochs, else nothing.

    ``epochs_before`` lists the numbers of epochs that the run was given before.
    """
    before = record.get("epochs_before", [])
    if _trains_on(args, record["arguments"]):
        before = [*before, record["arguments"]["epoch"]]
    return {"epochs_before": before} if before else {}


def advice(path: str) -> str:
    """Return how an interrupted run can be continued."""
    if storage.iterations(run_directory.snapshots_path(path)):
        return f"continue with --resume {path}"
    return "there was no snapshot yet; start again"


def _ranks(n_ranks, virtual_ranks):
    ranks = "1 rank" if n_ranks == 1 else f"{n_ranks} ranks"
    return ranks if virtual_ranks == 1 else f"{ranks} ({virtual_ranks} per process)"


def interruption(record: dict) -> Optional[str]:
    """Describe how a run was interrupted, and which processes it had.

    A launcher names a rank that dies by its PID and host alone, and ends the others at
    once.

    Args:
        record (dict): Content of its ``args.json``.

    Returns:
        str or None: A line; ``None`` if the run ended in an orderly way.
    """
    if "ended" in record:
        interrupted = record["ended"] == "interrupted"
        return "the run was interrupted" if interrupted else None
    ranks = (
        f"rank {rank.get('rank')} was PID {rank.get('pid')} on {rank.get('host')}"
        for rank in record.get("ranks", [])
    )
    return f"the run was interrupted; {', '.join(ranks)}"


def _complete(args, n_processes):
    options.complete(args, n_processes)
    return args


def _has_begun(path):
    return run_directory.is_finished(path) or bool(
        storage.iterations(run_directory.snapshots_path(path))
    )


def _as_flags(path, recorded):
    """Return the options of a run as a command line would give them."""
    flags = []
    for name in _TAKEN:
        value = recorded.get(name)
        if value is None or value is False:
            continue
        if name == "threads" and not threads.can_be_limited():
            continue
        if not isinstance(value, (int, float, str)):
            raise UsageError(f"{path}: args.json has an invalid {name}")
        # In one argument, as a value may start with a dash.
        flags.append(flag(name) if value is True else f"{flag(name)}={value}")
    return flags


def _device_flags(record, given):
    """Return the flags of the run's device and communicator, if none are given."""
    if given.gpu or given.cpu or given.communicator:
        return []
    communicator = record["arguments"].get("communicator")
    device = ["--gpu" if record.get("device") == "GPU" else "--cpu"]
    return device + ([f"--communicator={communicator}"] if communicator else [])


def _compare(path, name, recorded, given):
    if given != recorded:
        raise UsageError(
            f"{path} was made with {flag(name)} {recorded}, not {given}; keep "
            f"{flag(name)} unchanged, or start another run"
        )
