"""What a run needs before it can train, and what is refused before that."""

import os
import socket
import sys

from chainer_crossbn import datasets, models
from chainer_crossbn.commands.train import resume
from chainer_crossbn.commands.train.description import versions_of
from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs import run_directory
from chainer_crossbn.training.snapshots import state, storage


def on_rank_zero(world, function):
    """Call a function on rank 0; return its value, or raise its UsageError, on all."""
    value = error = None
    if world.rank == 0:
        try:
            value = function()
        except (UsageError, datasets.DatasetError) as caught:
            error = str(caught)
        except SystemExit:  # --help
            error = ""
    value, error = world.bcast((value, error))
    if error == "":
        sys.exit(0)
    if error is not None:
        raise UsageError(error)
    return value


def load_data(args, index, watchdog):
    """Load the images, on rank 0.

    Args:
        args (argparse.Namespace): The run's arguments.
        index (Index): What is known of image files.
        watchdog (Watchdog): Is told that it goes on.

    Returns:
        The dataset.

    Raises:
        UsageError, DatasetError: If they are not there, or not sound.
    """

    def show(line):
        print(line, file=sys.stderr, flush=True)
        watchdog.moves()

    data = datasets.load(
        args.dataset,
        args.data,
        train_size=args.train_size,
        test_size=args.test_size,
        progress=show,
        side=args.image_size,
        skip_broken=args.skip_broken,
        threads=args.decode_threads,
        index=index,
    )
    for line in data.notes:
        note(line)
    return data


def keep(index):
    """Remember which files are sound; without, the next run looks again."""
    try:
        index.save()
    except OSError as error:
        note(f"can't write {error.filename}: {error.strerror}")


def check_sizes(args, data, n_ranks):
    """Check that images and arguments fit, and set what is left open.

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


def check_sight(args, data, world):
    """Check that all ranks see the files that rank 0 has found."""
    if args.dataset not in datasets.OF_FILES:
        return
    path = data.train_images.path(0)
    missing = None if os.path.isfile(path) else (world.rank, socket.gethostname())
    found = next(filter(None, world.allgather(missing)), None)
    if found is not None:
        raise UsageError(
            f"rank {found[0]} on {found[1]} has no file {path}, which rank 0 has; "
            "--data must be there on all machines"
        )


def claim(plan, data):
    """Make the run's directory, or lock the one that is there."""
    if plan.record is not None:
        resume.check_data(plan, data.name, data.checksum)
        lock = run_directory.lock(plan.path)
        run_directory.clean(plan.path)
        return lock
    if plan.args.resume is None:
        return run_directory.create(plan.path)
    lock, aside = run_directory.create_or_replace(plan.path)
    if aside is not None:
        note(f"what is now {aside} had no snapshot yet; the run begins anew")
    return lock


def check_room(plan, model):
    """Check that there is room for what the run will write; else leave no trace."""
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
    """Go on from the newest snapshot that is whole."""
    parts = {}

    def read():
        folder = run_directory.snapshots_path(plan.path)
        found = storage.read_newest(folder, note)
        if found is None:
            raise UsageError(
                f"{plan.path} has no snapshot to go on from; begin anew under another "
                "--name"
            )
        parts.update(found[1])
        return found[0]

    manifest = on_rank_zero(comm.mpi_comm, read)
    if not state.restore(parts, trainer, comm):
        raise UsageError(
            f"the snapshot of iteration {manifest['iteration']} in {plan.path} is not "
            "of this network"
        )
    if comm.rank == 0:
        left = resume.last_seen(plan.record)
        if left is not None:
            print(left)
        versions = versions_of(device)
        for line in resume.differences(
            plan.record, manifest, versions, comm.size, plan.args.virtual_ranks
        ):
            note(line)
        print(f"goes on after iteration {manifest['iteration']}", flush=True)


def note(line):
    print(f"train_cifar.py: note: {line}", file=sys.stderr, flush=True)
