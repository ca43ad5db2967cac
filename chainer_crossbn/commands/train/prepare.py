"""Check and prepare all that a run needs before it trains."""

import os
import socket
import sys
from contextlib import ExitStack
from typing import Any, Callable, Optional, TypeVar

from mpi4py import MPI

from chainer_crossbn import datasets, models
from chainer_crossbn.commands.train import resume
from chainer_crossbn.commands.train.description import versions_of
from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs import run_directory
from chainer_crossbn.training.snapshots import state, storage

T = TypeVar("T")


def on_rank_zero(world: MPI.Comm, function: Callable[[], T]) -> T:
    """Call a function on rank 0; return its value on all ranks.

    Where it raises a UsageError, a DatasetError or SystemExit (``--help``), all ranks
    raise a UsageError or SystemExit.
    """
    value: Any = None
    error: Optional[BaseException] = None
    if world.rank == 0:
        try:
            value = function()
        except (UsageError, datasets.DatasetError) as raised:
            error = UsageError(str(raised))
        except SystemExit as raised:
            error = raised
    value, error = world.bcast((value, error))
    if error is not None:
        raise error
    return value


def load_data(args, watchdog):
    """Load the images, on rank 0.

    Args:
        args (argparse.Namespace): The run's arguments.
        watchdog (Watchdog): Is told that it goes on.

    Returns:
        The dataset.

    Raises:
        UsageError, DatasetError: If they are not there, or not sound.
    """

    def show(line):
        print(line, file=sys.stderr, flush=True)
        watchdog.keep_alive()

    data = datasets.load(
        args.dataset,
        args.data,
        train_size=args.train_size,
        test_size=args.test_size,
        progress=show,
        side=args.image_size,
        skip_broken=args.skip_broken,
        threads=args.decode_threads,
    )
    for line in data.notes:
        note(line)
    return data


def check_sizes(args, data, n_ranks):
    """Check that images and arguments are compatible, and fill in missing values.

    Args:
        args (argparse.Namespace): The run's arguments; gets ``eval_train``.
        data: The dataset.
        n_ranks (int): All ranks.

    Raises:
        UsageError: If they do not.
    """
    least = models.MODELS[args.model].least_image_size
    height, width = data.train_images.shape[-2:]
    if min(height, width) < least:
        raise UsageError(
            f"--model {args.model} takes images of {least}x{least} or more; those of "
            f"{data.name} are {height}x{width}"
        )
    n_train = len(data.train_labels)
    if args.batchsize * n_ranks > n_train:
        raise UsageError(
            f"a global batch of {n_ranks} ranks x {args.batchsize} images is more than "
            f"the {n_train} training images; choose a smaller --batchsize"
        )
    if args.eval_train is None:
        args.eval_train = min(n_train, len(data.test_labels))
    if args.eval_train > n_train:
        raise UsageError(
            f"--eval-train {args.eval_train} is more than the {n_train} training images"
        )


def check_visibility(args, data, world):
    """Check that all ranks have the files that rank 0 has listed."""
    if args.dataset not in datasets.FILE_BASED:
        return
    path = data.train_images.path(0)
    missing = None if os.path.isfile(path) else (world.rank, socket.gethostname())
    first = next(filter(None, world.allgather(missing)), None)
    if first is not None:
        rank, host = first
        raise UsageError(
            f"rank {rank} on {host} has no file {path}, which rank 0 has; --data must "
            "be the same on all machines"
        )


def claim(plan: resume.Plan, data: datasets.ImageDataset, stack: ExitStack) -> None:
    """Create the run directory, or lock the existing one; rank 0 calls it.

    Args:
        plan (Plan): The run.
        data (ImageDataset): Its images.
        stack (contextlib.ExitStack): Releases the lock when it is closed.

    Raises:
        UsageError: If the directory can't be used.
    """
    if plan.record is not None:
        resume.check_data(plan.path, plan.record, data.name, data.checksum)
        lock = run_directory.lock(plan.path)
        run_directory.clean(plan.path)
    elif plan.args.resume is None:
        lock = run_directory.create(plan.path)
    else:
        lock, aside = run_directory.create_or_replace(plan.path)
        if aside is not None:
            note(f"renamed to {aside}, because it had no snapshot yet; starting again")
    stack.callback(os.close, lock)


def check_room(plan, model):
    """Check that the disk has space for the run; if not, remove what was created."""
    args = plan.args
    snapshots = storage.MOST * bool(args.snapshot_interval) * state.size_of(model)
    result = (not args.no_model) * state.size_of(model) // 2
    try:
        run_directory.check_room(plan.path, snapshots + result)
    except UsageError:
        if plan.record is None:
            run_directory.discard(plan.path)
        raise


def restore(plan, trainer, comm, device):
    """Continue from the newest complete snapshot."""
    parts = None  # on rank 0 the snapshot, which is larger than MPI sends at once

    def read():
        nonlocal parts
        folder = run_directory.snapshots_path(plan.path)
        snapshot = storage.read_newest(folder, note)
        if snapshot is None:
            raise UsageError(
                f"{plan.path} has no snapshot to continue from; start again with "
                "another --name"
            )
        manifest, parts = snapshot
        return manifest

    manifest = on_rank_zero(comm.mpi_comm, read)
    if not state.restore(parts, trainer, comm):
        raise UsageError(
            f"the snapshot of iteration {manifest['iteration']} in {plan.path} is not "
            "of this network"
        )
    if comm.rank == 0:
        interruption = resume.interruption(plan.record)
        if interruption is not None and not run_directory.is_finished(plan.path):
            print(interruption)
        versions = versions_of(device)
        for line in resume.differences(
            plan.record, manifest, versions, comm.size, plan.args.virtual_ranks
        ):
            note(line)
        print(f"continuing after iteration {manifest['iteration']}", flush=True)


def note(line):
    print(f"train_cifar.py: note: {line}", file=sys.stderr, flush=True)
