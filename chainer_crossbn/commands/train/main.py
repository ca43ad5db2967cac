"""Train from a command line, on all ranks."""

import contextlib
import errno
import os
import sys
import time
import traceback
from typing import Optional

import chainer
import numpy
from mpi4py import MPI

from chainer_crossbn import (
    collectives,
    communicators,
    datasets,
    kernels,
    launcher,
)
from chainer_crossbn.commands.command_line import print_anything
from chainer_crossbn.commands.train import (
    alike,
    build,
    console,
    description,
    devices,
    evaluate,
    options,
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

# The disk is full, over quota, failing or read-only.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def main(argv: Optional[list[str]] = None) -> int:
    """Run ``train_cifar.py``; all ranks call it.

    An error on one rank ends the processes of all ranks with status 1, an interrupt
    with status 130.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status: 0; 1 if the run failed on all ranks; 2 if the request can't be
        fulfilled, which rank 0 explains in one line on standard error.
    """
    print_anything()
    world = MPI.COMM_WORLD
    message = launcher.mismatch(os.environ, world.size)
    if message is not None:
        launch = launcher.launch_of(os.environ)
        if launch is not None and launch.rank == 0:
            print(f"train_cifar.py: error: {message}", file=sys.stderr, flush=True)
        return 2
    try:
        run(sys.argv[1:] if argv is None else argv, world)
    except UsageError as error:
        return _end(world, f"error: {error}", 2)
    except Ended as ended:
        return _end(world, f"error: {ended}" if ended.status else ended, ended.status)
    except datasets.DatasetError as error:
        # A broken image, detected on the rank that uses it.
        _abort(world, f"train_cifar.py: error: {error}\n", 1)
    except OSError as error:
        _abort(world, _of_disk(error) or traceback.format_exc(), 1)
    except KeyboardInterrupt as interrupt:
        message = ": ".join(["train_cifar.py: interrupted", *map(str, interrupt.args)])
        _abort(world, f"{message}\n", 130)
    except Exception:
        _abort(world, traceback.format_exc(), 1)
    return 0


def _end(world, message, status):
    """Print a message once, as all ranks end; return the exit status."""
    if world.rank == 0:
        out = sys.stderr if status else sys.stdout
        print(f"train_cifar.py: {message}", file=out, flush=True)
    # The launcher may end all ranks when the first leaves, before the line is printed.
    world.Barrier()
    return status


def _abort(world, message, status):
    """Print a message and end all ranks; if all fail, the lowest prints it first."""
    time.sleep(0.5 * min(world.rank, 8))
    print(message, end="", file=sys.stderr, flush=True)
    # The launcher discards output that it has not forwarded before the abort.
    time.sleep(0.3)
    world.Abort(status)


def _of_disk(error):
    """Return a message for an error of the disk, else ``None``."""
    if error.errno not in _DISK_ERRORS:
        return None
    return (
        f"train_cifar.py: error: can't write {error.filename}: {error.strerror}; free "
        "space, and continue with --resume auto\n"
    )


def run(argv: list[str], world: MPI.Comm) -> None:
    """Train a network.

    Args:
        argv (list of str): Arguments.
        world (mpi4py.MPI.Comm): All ranks.

    Raises:
        UsageError: On all ranks, before anything is written, if the request can't be
            fulfilled.
        Ended: On all ranks, if the run ends before its last epoch, or is finished.
    """
    alike.check_alike(world, argv)
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    with contextlib.closing(Watchdog(world, node, _time_limit())) as watchdog:
        _run(argv, world, node, watchdog)


def _run(argv, world, node, watchdog):
    plan = on_rank_zero(world, lambda: resume.plan(argv, world.size))
    if plan.finished:
        raise Ended(f"{plan.path} is already finished", 0)
    with chainer.using_config("dtype", options.chainer_dtype(plan.args.dtype)):
        _run_plan(plan, world, node, watchdog)


def _run_plan(plan, world, node, watchdog):
    args = plan.args
    device, reason = devices.choose(args, world, node)
    device.use()
    collective = _choose_collective(world, device)
    comm = communicators.create(args.communicator, world)
    cores = devices.count_cores(node)
    options.complete_threads(args, max(1, cores // node.size))
    watchdog.reach("the reading of the data")
    data = on_rank_zero(world, lambda: prepare.load_data(args, watchdog))
    prepare.check_sizes(args, data, world.size * args.virtual_ranks)
    prepare.check_visibility(args, data, world)
    if args.evaluate is not None:
        with contextlib.closing(_loader(args)) as load:
            setup = Setup(args, data, load, comm, device, watchdog)
            evaluate.evaluate(setup, plan.path)
        return
    details = description.describe(
        data, comm, device, collective, cores, args.virtual_ranks
    )
    with contextlib.ExitStack() as stack:
        on_rank_zero(world, lambda: prepare.claim(plan, data, stack))
        stack.enter_context(threads.limited(args.threads))
        load = _loader(args)
        stack.callback(load.close)
        setup = Setup(args, data, load, comm, device, watchdog)
        if device.xp is numpy:
            keep_freed_memory()
            watchdog.reach("the compilation of kernels")
            _compile_kernels(world, node, watchdog)
        _train(plan, setup, details, reason)


def _loader(args):
    return Loader(args.decode_threads or 1, augmented=bool(args.augment))


def _train(plan, setup, details, reason):
    """Train in the run directory, and write the results."""
    args, path, comm = plan.args, plan.path, setup.comm
    setup.watchdog.reach("the making of the network")
    trainer, model = build.build(setup, path)
    with stop_signals.caught() as stop_requested:
        guard = Guard(
            path,
            comm,
            epochs=args.snapshot_interval,
            allow_nan=args.allow_nan,
            stop_requested=stop_requested,
            progress=setup.watchdog,
        )
        trainer.extend(guard)
        on_rank_zero(comm.mpi_comm, lambda: prepare.check_room(plan, model))
        if plan.record is not None:
            prepare.restore(plan, trainer, comm, setup.device)
            details = {**details, **resume.extension(args, plan.record)}
            if comm.rank == 0:
                run_directory.reopen(path)
        if comm.rank == 0:
            run_directory.write_arguments(path, vars(args), details)
            console.describe(args, details, reason, model, path)
        try:
            trainer.run(show_loop_exception_msg=False)
            guard.settle()
        except Ended as ended:
            if comm.rank == 0:
                diverged = isinstance(ended, Diverged)
                run_directory.note_end(path, str(ended), diverged)
            raise
        except KeyboardInterrupt:
            if comm.rank == 0:
                run_directory.note_end(path, "interrupted")
            raise KeyboardInterrupt(resume.advice(path)) from None
    _write_results(plan, setup, model)
    if comm.rank == 0:
        console.conclude(trainer, path)


def _write_results(plan, setup, model):
    args, path, comm = plan.args, plan.path, setup.comm
    setup.watchdog.reach("the writing of the results")
    if not args.no_model:
        final = averaged(model, comm)
        if comm.rank == 0:
            write_model(path, final)
    test = build.compare_tests(model, setup)
    # Last, because it changes the running statistics.
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


def _compile_kernels(world, node, watchdog):
    """Compile all kernels that are used, so that no iteration includes compilation.

    One rank of each node does it first; the others load the result from disk.
    """
    dtype = chainer.get_dtype(map_mixed16=numpy.float16)
    with contextlib.closing(console.CompilationProgress()) as progress:

        def note():
            watchdog.keep_alive()
            if world.rank == 0:
                progress()

        with kernels.each_step(note):
            if node.rank == 0:
                kernels.precompile(dtype)
            node.Barrier()
            if node.rank:
                kernels.precompile(dtype)
