"""Build a training run from its arguments, and run it on all ranks."""

import os
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
    arguments,
    collectives,
    communicators,
    console,
    datasets,
    devices,
    kernels,
    normalization_arguments,
    run_directory,
)
from chainer_crossbn.command_line import UsageError
from chainer_crossbn.extensions import EpochStatistics, GlobalEvaluator
from chainer_crossbn.iterators import ShareIterator
from chainer_crossbn.kernels.memory import keep_freed_memory
from chainer_crossbn.local_statistics import deviations
from chainer_crossbn.models import MODELS
from chainer_crossbn.optimizers import MomentumSGD
from chainer_crossbn.profiling import Profiler
from chainer_crossbn.running_statistics import averaged, of_rank_zero
from chainer_crossbn.updaters import GlobalUpdater, as_input, prime


def main(argv=None):
    """Train as ``train_cifar.py`` does; every rank calls it.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status: 0, or 2 where the user asked for something that can't be done
        (said in one line on standard error, by rank 0).

    An error in one rank ends the processes of all ranks with status 1, an interrupt
    with status 130.
    """
    world = MPI.COMM_WORLD
    try:
        run(argv, world)
    except UsageError as error:
        if world.rank == 0:
            print(f"train_cifar.py: error: {error}", file=sys.stderr, flush=True)
        # A rank that leaves early may take the others with it before the line is out.
        world.Barrier()
        return 2
    except KeyboardInterrupt:
        _abort(world, "train_cifar.py: interrupted\n", 130)
    except Exception:
        _abort(world, traceback.format_exc(), 1)
    return 0


def _abort(world, message, status):
    """Say why and end all ranks; where they all fail alike, the lowest speaks."""
    time.sleep(0.5 * min(world.rank, 8))
    print(message, end="", file=sys.stderr, flush=True)
    # The launcher drops what it has not passed on when it is told to abort.
    time.sleep(0.3)
    world.Abort(status)


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
        argv (list of str or None): Arguments; those of the process by default.
        world (mpi4py.MPI.Comm): All ranks.

    Raises:
        UsageError: On all ranks, before anything is written, if it can't be done.
    """
    args = _on_rank_zero(world, lambda: _parse(argv))
    arguments.complete(args, world.size)
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    device, reason = devices.choose(args, world, node)
    comm = communicators.create(args.communicator, world)
    data = _on_rank_zero(world, lambda: _load_data(args))
    _check_sizes(args, data, world.size)
    path = _on_rank_zero(world, lambda: run_directory.create(args.out, args.name))
    cores = devices.count_cores(node)
    args.threads = args.threads or max(1, cores // node.size)
    with threadpoolctl.threadpool_limits(args.threads):
        device.use()
        details = _describe(data, comm, device, cores)
        if comm.rank == 0:
            run_directory.write_arguments(path, vars(args), details)
            print(f"device: {details['device']} ({reason})")
            print(f"run: {path}", flush=True)
        if device.xp is numpy:
            keep_freed_memory()
            _compile_kernels(node)
        trainer, model = _build(args, data, comm, device, path)
        trainer.run(show_loop_exception_msg=False)
        if not args.no_model:
            final = averaged(model, comm)
            if comm.rank == 0:
                run_directory.write_model(path, final)
        test = _compare_tests(model, data, comm, device)
        # Last, as it moves the running statistics.
        layers = deviations(model, _first_batch(args, data, comm, device), comm)
        if comm.rank == 0:
            run_directory.write_statistics(path, test, layers)


def _parse(argv):
    args = arguments.parse(argv)
    try:
        collectives.timeout()
    except ValueError as error:
        raise UsageError(error) from None
    return args


def _compile_kernels(node):
    """Compile what is compiled when first called, so that no step is timed with it.

    One rank of each node does it first; the others find it on disk.
    """
    if node.rank == 0:
        kernels.precompile()
    node.Barrier()
    if node.rank:
        kernels.precompile()


def _load_data(args):
    data = datasets.load(
        args.dataset,
        args.data,
        train_size=args.train_size,
        test_size=args.test_size,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    for note in data.notes:
        print(f"train_cifar.py: note: {note}", file=sys.stderr, flush=True)
    return data


def _check_sizes(args, data, n_ranks):
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


def _build(args, data, comm, device, path):
    numpy.random.seed(args.seed)
    normalization = normalization_arguments.create(args, comm)
    model = MODELS[args.model](
        data.n_class,
        normalization,
        width=args.width,
        fc_units=args.fc_units,
        dropout=args.dropout,
        initialW=arguments.INITIALIZERS[args.init](),
    )
    model.to_device(device)
    normalization.prepare(model, _first_batch(args, data, comm, device))
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
        iterator, optimizer, data.train_images, data.train_labels, comm, device
    )
    trainer = Trainer(updater, (args.epoch, "epoch"), path)
    part = datasets.take_balanced(data.train_labels, args.eval_train, data.n_class)
    sets = {
        "train": (data.train_images[part], data.train_labels[part]),
        "validation": (data.test_images, data.test_labels),
    }
    trainer.extend(EpochStatistics(comm))
    evaluator = GlobalEvaluator(model, sets, comm, device)
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


def _first_batch(args, data, comm, device):
    """Return this rank's mini-batch of a global one that depends on the seed alone."""
    order = numpy.random.RandomState(args.seed).permutation(len(data.train_labels))
    mine = order[comm.rank * args.batchsize : (comm.rank + 1) * args.batchsize]
    return as_input(data.train_images[mine], device)


def _compare_tests(model, data, comm, device):
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
        seen = GlobalEvaluator(reading, sets, comm, device)()
        found[name] = {what: seen[f"test/main/{what}"] for what in ("loss", "accuracy")}
    return found


def _describe(data, comm, device, cores):
    """Gather what ``args.json`` tells of the run besides the arguments."""
    mine = {"rank": comm.rank, "pid": os.getpid(), "host": socket.gethostname()}
    ranks = comm.gather_obj(mine)
    versions = {"mpi": MPI.Get_library_version().strip().splitlines()[0]}
    if device.xp is not numpy:
        versions["cupy"] = device.xp.__version__
    return {
        "n_ranks": comm.size,
        "ranks": ranks,
        "cores": cores,  # of rank 0's node
        "device": "CPU" if device.xp is numpy else "GPU",
        "dataset": {
            "name": data.name,
            "checksum": data.checksum,
            "train": len(data.train_labels),
            "test": len(data.test_labels),
        },
        "versions": versions,
    }
