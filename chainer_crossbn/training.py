"""Build a training run from its arguments, and run it on all ranks."""

import contextlib
import errno
import os
import platform
import socket
import sys
import time
import traceback

import chainer
import chainermn
import numpy
import threadpoolctl
from chainer.training import Trainer
from chainer.training.extensions import ExponentialShift, LogReport, observe_lr
from mpi4py import MPI

from chainer_crossbn import (
    __version__,
    arguments,
    collectives,
    communicators,
    console,
    data_arguments,
    datasets,
    devices,
    kernels,
    models,
    normalization_arguments,
    ranks,
    run_directory,
    stop_signals,
)
from chainer_crossbn.command_line import UsageError
from chainer_crossbn.ending import Ended
from chainer_crossbn.extensions import EpochStatistics, GlobalEvaluator, Guard
from chainer_crossbn.iterators import ShareIterator
from chainer_crossbn.kernels.memory import keep_freed_memory
from chainer_crossbn.loading import Loader, Request
from chainer_crossbn.local_statistics import deviations
from chainer_crossbn.optimizers import MomentumSGD
from chainer_crossbn.profiling import Profiler
from chainer_crossbn.running_statistics import averaged, of_rank_zero
from chainer_crossbn.snapshots import resumption, state, storage
from chainer_crossbn.updaters import GlobalUpdater, as_input, prime
from chainer_crossbn.watchdog import Watchdog

# Disk full, over quota, failing, or gone read-only.
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def main(argv=None):
    """Train as ``train_cifar.py`` does; every rank calls it.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status: 0, 1 where the run failed on all ranks, or 2 where the user
        asked for something that can't be done (said in one line on standard error, by
        rank 0).

    An error in one rank ends the processes of all ranks with status 1, an interrupt
    with status 130.
    """
    world = MPI.COMM_WORLD
    try:
        run(sys.argv[1:] if argv is None else argv, world)
    except UsageError as error:
        return _end(world, f"error: {error}", 2)
    except Ended as ended:
        return _end(world, f"error: {ended}" if ended.status else ended, ended.status)
    except datasets.DatasetError as error:
        # Found as it was used, by the rank that has it.
        _abort(world, f"train_cifar.py: error: {error}\n", 1)
    except OSError as error:
        _abort(world, _of_disk(error) or traceback.format_exc(), 1)
    except KeyboardInterrupt:
        _abort(world, "train_cifar.py: interrupted\n", 130)
    except Exception:
        _abort(world, traceback.format_exc(), 1)
    return 0


def _end(world, message, status):
    """Say why once, where all ranks end alike; return the exit status."""
    if world.rank == 0:
        out = sys.stderr if status else sys.stdout
        print(f"train_cifar.py: {message}", file=out, flush=True)
    # A rank that leaves early may take the others with it before the line is out.
    world.Barrier()
    return status


def _abort(world, message, status):
    """Say why and end all ranks; where they all fail alike, the lowest speaks."""
    time.sleep(0.5 * min(world.rank, 8))
    print(message, end="", file=sys.stderr, flush=True)
    # The launcher drops what it has not passed on when it is told to abort.
    time.sleep(0.3)
    world.Abort(status)


def _of_disk(error):
    """Return a line where an error is that of a disk, else None."""
    if error.errno not in _OF_DISKS:
        return None
    return (
        f"train_cifar.py: error: can't write {error.filename}: {error.strerror}; make "
        "room, and go on with --resume auto\n"
    )


def _on_rank_zero(world, function):
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


def run(argv, world):
    """Train a network as a command line says.

    Args:
        argv (list of str): Arguments.
        world (mpi4py.MPI.Comm): All ranks.

    Raises:
        UsageError: On all ranks, before anything is written, if it can't be done.
        Ended: On all ranks, if it ends before its last epoch, or had done so.
    """
    ranks.check_alike(world, argv)
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    with contextlib.closing(Watchdog(world, node, _time_limit())) as watchdog:
        _run(argv, world, node, watchdog)


def _run(argv, world, node, watchdog):
    plan = _on_rank_zero(world, lambda: resumption.plan(argv, world.size))
    if plan.finished:
        raise Ended(f"{plan.path} is finished already", 0)
    args = plan.args
    device, reason = devices.choose(args, world, node)
    device.use()
    collective = _choose_collective(world, device)
    comm = communicators.create(args.communicator, world)
    cores = max(1, devices.count_cores(node) // node.size)
    args.threads = args.threads or cores
    data_arguments.complete_threads(args, cores)
    watchdog.at("the reading of the data")
    index = datasets.Index(run_directory.index_of(args.out))
    data = _on_rank_zero(world, lambda: _load_data(args, index, watchdog))
    _check_sizes(args, data, world.size)
    _check_sight(args, data, world)
    lock = _on_rank_zero(world, lambda: _claim(plan, data))
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(threadpoolctl.threadpool_limits(args.threads))
            load = Loader(args.decode_threads or 1)
            stack.callback(load.close)
            _train(
                *(plan, data, load, index, comm, node),
                *(device, reason, collective, watchdog),
            )
    finally:
        if world.rank == 0:
            os.close(lock)


def _train(plan, data, load, index, comm, node, device, reason, collective, watchdog):
    """Train in the run directory that is there, and write what comes out."""
    args, path = plan.args, plan.path
    if device.xp is numpy:
        keep_freed_memory()
        watchdog.at("the compilation of kernels")
        _compile_kernels(node, watchdog)
    watchdog.at("the making of the network")
    trainer, model = _build(args, data, load, comm, device, path, watchdog)
    with stop_signals.noted() as stop_asked:
        guard = Guard(
            *(path, comm, args.snapshot_interval, args.allow_nan),
            *(stop_asked, watchdog.at),
        )
        trainer.extend(guard)
        _on_rank_zero(comm.mpi_comm, lambda: _check_room(plan, model))
        if plan.record is not None:
            _restore(plan, trainer, comm, device)
        cores = devices.count_cores(node)
        details = _describe(data, comm, device, collective, cores)
        if comm.rank == 0:
            _keep(index)
            run_directory.write_arguments(path, vars(args), details)
            print(f"device: {details['device']} ({reason})")
            print(f"run: {path}", flush=True)
        try:
            trainer.run(show_loop_exception_msg=False)
            guard.settle()
        except Ended as ended:
            if comm.rank == 0:
                run_directory.note_end(path, str(ended))
            raise
    watchdog.at("the writing of the results")
    if not args.no_model:
        final = averaged(model, comm)
        if comm.rank == 0:
            run_directory.write_model(path, final)
    test = _compare_tests(model, data, load, comm, device, watchdog)
    # Last, as it moves the running statistics.
    layers = deviations(model, _first_batch(args, data, load, comm, device), comm)
    if comm.rank == 0:
        run_directory.write_statistics(path, test, layers)


def _time_limit():
    try:
        return collectives.timeout()
    except ValueError as error:
        raise UsageError(error) from None


def _choose_collective(world, device):
    try:
        return collectives.choose(world, on_gpu=device.xp is not numpy)
    except ValueError as error:
        raise UsageError(error) from None


def _claim(plan, data):
    """Make the run's directory, or lock the one that is there."""
    if plan.record is not None:
        resumption.check_data(plan, data.name, data.checksum)
        lock = run_directory.lock(plan.path)
        run_directory.clean(plan.path)
        return lock
    if plan.args.resume is None:
        return run_directory.create(plan.path)
    lock, aside = run_directory.create_anew(plan.path)
    if aside is not None:
        _note(f"what is now {aside} had no snapshot yet; the run begins anew")
    return lock


def _check_room(plan, model):
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


def _restore(plan, trainer, comm, device):
    """Go on from the newest snapshot that is whole."""
    parts = {}

    def read():
        folder = run_directory.snapshots_of(plan.path)
        found = storage.read_newest(folder, _note)
        if found is None:
            raise UsageError(
                f"{plan.path} has no snapshot to go on from; begin anew under another "
                "--name"
            )
        parts.update(found[1])
        return found[0]

    manifest = _on_rank_zero(comm.mpi_comm, read)
    if not state.restore(parts, trainer, comm):
        raise UsageError(
            f"the snapshot of iteration {manifest['iteration']} in {plan.path} is not "
            "of this network"
        )
    if comm.rank == 0:
        left = resumption.last_seen(plan.record)
        if left is not None:
            print(left)
        versions = _versions(device)
        for line in resumption.differences(plan.record, manifest, versions, comm.size):
            _note(line)
        print(f"goes on after iteration {manifest['iteration']}", flush=True)


def _note(line):
    print(f"train_cifar.py: note: {line}", file=sys.stderr, flush=True)


def _compile_kernels(node, watchdog):
    """Compile what is compiled when first called, so that no step is timed with it.

    One rank of each node does it first; the others find it on disk.
    """
    with kernels.each_step(watchdog.moves):
        if node.rank == 0:
            kernels.precompile()
        node.Barrier()
        if node.rank:
            kernels.precompile()


def _keep(index):
    """Remember which files are sound; without, the next run looks again."""
    try:
        index.save()
    except OSError as error:
        _note(f"can't write {error.filename}: {error.strerror}")


def _load_data(args, index, watchdog):
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
    for note in data.notes:
        _note(note)
    return data


def _check_sizes(args, data, n_ranks):
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


def _check_sight(args, data, world):
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


def _build(args, data, load, comm, device, path, watchdog):
    numpy.random.seed(args.seed)
    normalization = normalization_arguments.create(args, comm)
    model = models.create(
        args.model,
        data.n_class,
        normalization,
        width=args.width,
        fc_units=args.fc_units,
        dropout=args.dropout,
        initialW=arguments.INITIALIZERS[args.init](),
        zero_gamma=bool(args.zero_gamma),
        image_size=data.train_images.shape[-1],
        recomputed=bool(args.recompute),
    )
    model.to_device(device)
    normalization.prepare(model, _first_batch(args, data, load, comm, device))
    optimizer = chainermn.create_multi_node_optimizer(
        MomentumSGD(args.lr, args.momentum, args.weight_decay), comm
    )
    optimizer.setup(model)
    prime(optimizer, comm)
    # Every rank drops units of its own.
    device.xp.random.seed(
        int(numpy.random.RandomState([args.seed, comm.rank]).randint(2**31))
    )
    n_train = len(data.train_labels)
    iterator = ShareIterator(n_train, args.batchsize, comm.rank, comm.size, args.seed)
    if iterator.dropped and comm.rank == 0:
        print(
            f"left out: {iterator.dropped} of {n_train} images each epoch, fewer than "
            f"the {comm.size} ranks",
            flush=True,
        )
    updater = GlobalUpdater(
        *(iterator, optimizer, data.train_images, data.train_labels),
        *(comm, device, load),
    )
    updater.note_place = watchdog.at
    trainer = Trainer(updater, (args.epoch, "epoch"), path)
    part = datasets.take_balanced(data.train_labels, args.eval_train, data.n_class)
    sets = {
        "train": (data.train_images[part], data.train_labels[part]),
        "validation": (data.test_images, data.test_labels),
    }
    trainer.extend(EpochStatistics(comm))
    evaluator = GlobalEvaluator(model, sets, comm, device, load)
    evaluator.note_place, evaluator.note_moves = watchdog.at, watchdog.moves
    trainer.extend(evaluator)
    if args.profile:
        trainer.extend(Profiler(model, updater, evaluator, comm, device))
    if args.lr_step:
        # After the log, so that an epoch is logged with the rate that it had.
        trainer.extend(
            ExponentialShift("lr", 0.5),
            trigger=(args.lr_step, "epoch"),
            priority=chainer.training.PRIORITY_READER - 1,
        )
    if comm.rank == 0:
        trainer.extend(observe_lr(), trigger=(1, "epoch"))
        trainer.extend(LogReport(trigger=(1, "epoch")))
        console.extend(trainer)
    return trainer, model


def _first_batch(args, data, load, comm, device):
    """Return this rank's mini-batch of a global one that depends on the seed alone."""
    order = numpy.random.RandomState(args.seed).permutation(len(data.train_labels))
    mine = order[comm.rank * args.batchsize : (comm.rank + 1) * args.batchsize]
    (batch,) = load(data.train_images, [Request(mine, (args.seed, 0))])
    return as_input(batch, device)


def _compare_tests(model, data, load, comm, device, watchdog):
    """Test with each reading of the ranks' running statistics, if these differ."""
    average = averaged(model, comm)
    if average is model:
        return {}
    readings = {
        "averaged": average,
        "rank0": of_rank_zero(model, comm),
        "within": averaged(model, comm, between=False),
    }
    found = {}
    for name, reading in readings.items():
        sets = {"test": (data.test_images, data.test_labels)}
        evaluator = GlobalEvaluator(reading, sets, comm, device, load)
        evaluator.note_moves = watchdog.moves
        seen = evaluator()
        found[name] = {what: seen[f"test/main/{what}"] for what in ("loss", "accuracy")}
    return found


def _describe(data, comm, device, collective, cores):
    """Gather what ``args.json`` tells of the run besides the arguments."""
    mine = {"rank": comm.rank, "pid": os.getpid(), "host": socket.gethostname()}
    all_ranks = comm.gather_obj(mine)
    return {
        "n_ranks": comm.size,
        "ranks": all_ranks,
        "cores": cores,  # of rank 0's node
        "device": "CPU" if device.xp is numpy else "GPU",
        "collective": collective,
        "dataset": {
            "name": data.name,
            "checksum": data.checksum,
            "train": len(data.train_labels),
            "test": len(data.test_labels),
        },
        "versions": _versions(device),
    }


def _versions(device):
    versions = {
        "chainer_crossbn": __version__,
        "python": platform.python_version(),
        "chainer": chainer.__version__,
        "numpy": numpy.__version__,
        "mpi": MPI.Get_library_version().strip().splitlines()[0],
    }
    if device.xp is not numpy:
        versions["cupy"] = device.xp.__version__
    return versions
