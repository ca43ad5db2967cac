"""Build a training run from its arguments, and run it on all ranks."""

import contextlib
import errno
import os
import sys
import time
import traceback

import chainer
import numpy
from mpi4py import MPI

from chainer_crossbn import collectives, communicators, datasets, kernels
from chainer_crossbn.commands.command_line import print_anything
from chainer_crossbn.commands.train import (
    alike,
    build,
    data_options,
    description,
    devices,
    prepare,
    resume,
    threads,
)
from chainer_crossbn.commands.train.build import Setup
from chainer_crossbn.commands.train.prepare import on_rank_zero
from chainer_crossbn.datasets.loading import Loader
from chainer_crossbn.errors import Diverged, Ended, UsageError
from chainer_crossbn.kernels.cpu.memory import keep_freed_memory
from chainer_crossbn.runs import run_directory
from chainer_crossbn.runs.weights import write_model
from chainer_crossbn.training import stop_signals
from chainer_crossbn.training.extensions import Guard
from chainer_crossbn.training.local_statistics import deviations
from chainer_crossbn.training.running_statistics import averaged
from chainer_crossbn.training.watchdog import Watchdog

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
    print_anything()
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


def run(argv, world):
    """Train a network as a command line says.

    Args:
        argv (list of str): Arguments.
        world (mpi4py.MPI.Comm): All ranks.

    Raises:
        UsageError: On all ranks, before anything is written, if it can't be done.
        Ended: On all ranks, if it ends before its last epoch, or had done so.
    """
    alike.check_alike(world, argv)
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    with contextlib.closing(Watchdog(world, node, _time_limit())) as watchdog:
        _run(argv, world, node, watchdog)


def _run(argv, world, node, watchdog):
    plan = on_rank_zero(world, lambda: resume.plan(argv, world.size))
    if plan.finished:
        raise Ended(f"{plan.path} is finished already", 0)
    args = plan.args
    device, reason = devices.choose(args, world, node)
    device.use()
    collective = _choose_collective(world, device)
    comm = communicators.create(args.communicator, world)
    cores = devices.count_cores(node)
    of_a_rank = max(1, cores // node.size)
    args.threads = args.threads or of_a_rank
    data_options.complete_threads(args, of_a_rank)
    watchdog.at("the reading of the data")
    index = datasets.Index(run_directory.index_path(args.out))
    data = on_rank_zero(world, lambda: prepare.load_data(args, index, watchdog))
    prepare.check_sizes(args, data, world.size * args.virtual_ranks)
    prepare.check_sight(args, data, world)
    details = description.describe(
        data, comm, device, collective, cores, args.virtual_ranks
    )
    lock = on_rank_zero(world, lambda: prepare.claim(plan, data))
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(threads.limited(args.threads))
            load = Loader(args.decode_threads or 1)
            stack.callback(load.close)
            setup = Setup(args, data, load, comm, device, watchdog)
            _train(plan, setup, node, index, details, reason)
    finally:
        if world.rank == 0:
            os.close(lock)


def _train(plan, setup, node, index, details, reason):
    """Train in the run directory that is there, and write what comes out."""
    args, path, comm = plan.args, plan.path, setup.comm
    watchdog = setup.watchdog
    if setup.device.xp is numpy:
        keep_freed_memory()
        watchdog.at("the compilation of kernels")
        _compile_kernels(node, watchdog)
    watchdog.at("the making of the network")
    trainer, model = build.build(setup, path)
    with stop_signals.noted() as stop_asked:
        guard = Guard(
            *(path, comm, args.snapshot_interval, args.allow_nan),
            *(stop_asked, watchdog.at),
        )
        trainer.extend(guard)
        on_rank_zero(comm.mpi_comm, lambda: prepare.check_room(plan, model))
        if plan.record is not None:
            prepare.restore(plan, trainer, comm, setup.device)
        if comm.rank == 0:
            prepare.keep(index)
            run_directory.write_arguments(path, vars(args), details)
            print(f"device: {details['device']} ({reason})")
            print(f"run: {path}", flush=True)
        try:
            trainer.run(show_loop_exception_msg=False)
            guard.settle()
        except Ended as ended:
            if comm.rank == 0:
                diverged = isinstance(ended, Diverged)
                run_directory.note_end(path, str(ended), diverged)
            raise
    watchdog.at("the writing of the results")
    if not args.no_model:
        final = averaged(model, comm)
        if comm.rank == 0:
            write_model(path, final)
    test = build.compare_tests(model, setup)
    # Last, as it moves the running statistics.
    layers = deviations(model, build.first_batch(setup), comm, args.virtual_ranks)
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


def _compile_kernels(node, watchdog):
    """Compile what is compiled when first called, so that no step is timed with it.

    One rank of each node does it first; the others find it on disk.
    """
    dtype = chainer.get_dtype(map_mixed16=numpy.float16)
    with kernels.each_step(watchdog.moves):
        if node.rank == 0:
            kernels.precompile(dtype)
        node.Barrier()
        if node.rank:
            kernels.precompile(dtype)
