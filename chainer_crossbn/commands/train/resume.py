"""Whether a command line begins a run or goes on with one, and with which arguments."""

import os
from typing import NamedTuple, Optional

from chainer_crossbn.commands.train import options
from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs import run_directory
from chainer_crossbn.training.snapshots import storage

# Taken from the run where the command line does not say otherwise, without a word: how
# to find the data, what to keep in memory and what to write.
_ALSO_KEPT = (
    *("data", "threads", "profile", "no_model", "allow_nan", "snapshot_interval"),
    *("skip_broken", "decode_threads", "recompute", "virtual_ranks"),
)
# A difference in one of these is named first, as others follow from it.
_FIRST = ("bn", "model", "dataset")


class Plan(NamedTuple):
    """What to do.

    Attributes:
        args (argparse.Namespace): Completed arguments.
        path (str): The run directory.
        record (dict or None): Content of ``args.json`` of the run to go on with; None
            where one begins.
        finished (bool): Whether there is nothing left to do.
    """

    args: object
    path: str
    record: Optional[dict]
    finished: bool = False


def plan(argv, n_processes):
    """Find out what a command line asks for.

    Args:
        argv (list of str): Arguments.
        n_processes (int): Number of processes.

    Returns:
        Plan: What to do; nothing is written yet.

    Raises:
        UsageError: If it can't be done, or if the run to go on with has other
            arguments.
    """
    given = options.parse(argv, given_only=True)
    if given.resume in (None, "auto"):
        args = _complete(options.parse(argv), n_processes)
        path = run_directory.run_path(args.out, args.name)
        if given.resume is None or not _has_begun(path):
            return Plan(args, path, None)
    else:
        path = os.path.normpath(given.resume)
    record = run_directory.read_arguments(path)
    recorded = record["arguments"]
    for name in _FIRST:
        if getattr(given, name) is not None:
            _compare(path, name, recorded[name], getattr(given, name))
    args = options.parse([*_as_flags(path, recorded), *argv])
    args = _complete(args, n_processes)
    n_ranks = n_processes * args.virtual_ranks
    for name in options.OF_RESULT:
        if name == "bn_group_size" and n_ranks != record["n_ranks"]:
            continue
        _compare(path, name, recorded.get(name), getattr(args, name))
    args.out, args.name = os.path.split(path)
    return Plan(args, path, record, finished=run_directory.is_finished(path))


def check_data(plan, name, checksum):
    """Check that a run goes on with the data that it began with.

    Args:
        plan (Plan): Of a run to go on with.
        name (str): Name of the data.
        checksum (str): Of the data.

    Raises:
        UsageError: If it began with others.
    """
    if plan.record["dataset"].get("checksum") != checksum:
        raise UsageError(
            f"{plan.path} was made with other data: the checksum of {name} was "
            f"{plan.record['dataset'].get('checksum')}, not {checksum}"
        )


def differences(record, manifest, versions, n_processes, virtual_ranks):
    """Tell what keeps a run from going on bit for bit as it would have.

    Args:
        record (dict): Content of its ``args.json``.
        manifest (dict): Of the snapshot that it goes on from.
        versions (dict): As in ``args.json``, of today.
        n_processes (int): Number of processes.
        virtual_ranks (int): Ranks per process.

    Returns:
        list of str: Lines.
    """
    ranks = _ranks(n_processes * virtual_ranks, virtual_ranks)
    ranks_before = _ranks(manifest["n_ranks"], manifest.get("virtual_ranks", 1))
    changed = [
        (ranks_before, ranks, ranks_before != ranks),
        *(
            (f"{name} {version}", versions.get(name), versions.get(name) != version)
            for name, version in record["versions"].items()
        ),
    ]
    return [
        f"the snapshot was taken with {was}, and the run goes on with {now}: not bit "
        "for bit as it would have"
        for was, now, differs in changed
        if differs
    ]


def _ranks(n_ranks, virtual_ranks):
    ranks = "1 rank" if n_ranks == 1 else f"{n_ranks} ranks"
    return ranks if virtual_ranks == 1 else f"{ranks} ({virtual_ranks} per process)"


def last_seen(record):
    """Tell whose ranks a run was left by, where it had no time to say why it ended.

    A launcher names a rank that dies by its PID and host alone, and takes the others
    with it at once.

    Args:
        record (dict): Content of its ``args.json``.

    Returns:
        str or None: A line, None where the run came to an orderly end.
    """
    if "ended" in record:
        return None
    told = (
        f"{rank.get('rank')} was PID {rank.get('pid')} on {rank.get('host')}"
        for rank in record["ranks"]
    )
    return f"the run ended without a word; of its ranks {', '.join(told)}"


def _complete(args, n_processes):
    options.complete(args, n_processes)
    return args


def _has_begun(path):
    return run_directory.is_finished(path) or bool(
        storage.iterations(run_directory.snapshots_path(path))
    )


def _as_flags(path, recorded):
    """Return the arguments of a run as a command line would give them."""
    words = []
    for name in (*options.OF_RESULT, *_ALSO_KEPT):
        value = recorded.get(name)
        if value is None or value is False:
            continue
        if not isinstance(value, (int, float, str)):
            raise UsageError(f"{path}: args.json has a wrong {name}")
        flag = options.flag(name)
        # In one word, as a value may begin with a dash.
        words.append(flag if value is True else f"{flag}={value}")
    return words


def _compare(path, name, recorded, asked):
    if asked != recorded:
        flag = options.flag(name)
        raise UsageError(
            f"{path} was made with {flag} {recorded}, not {asked}; leave {flag} as it "
            "was, or begin another run"
        )
