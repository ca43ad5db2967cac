"""The command line of ``python -m chainer_crossbn doctor``."""

import contextlib
import io
import os
import sys
from argparse import Namespace

from chainer_crossbn.commands.command_line import (
    Parser,
    add,
    complain,
    print_anything,
)
from chainer_crossbn.commands.doctor import launch, versions
from chainer_crossbn.commands.doctor.findings import FATAL, Finding, status
from chainer_crossbn.commands.doctor.patience import Patience
from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs.values import number

_PROGRAM = "chainer_crossbn doctor"


def main(argv=None):
    """Look at the machine and the ranks; rank 0 tells what it found in one screen.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status, on all ranks: 0 all well, 1 something will hurt, 2 it can't
        run (or the arguments are wrong: one line on standard error).
    """
    print_anything()
    size, rank = launch.told(os.environ)
    try:
        # Help, too, is told once.
        with contextlib.redirect_stdout(io.StringIO() if rank else sys.stdout):
            args = _parse(argv)
    except UsageError as error:
        return _refuse(rank, error)
    patience = Patience(rank, args.patience)
    with patience.watching():
        patience.at("the start of MPI")
        error = versions.import_error()
        if error is not None:
            return _refuse(rank, error)
        from mpi4py import MPI

        if size > 1 and MPI.COMM_WORLD.size == 1:
            return _refuse(rank, launch.strangers(size, _library(MPI)))
        return _examine(args.out, MPI.COMM_WORLD, patience.at)


def _parse(argv):
    parser = Parser(
        prog=f"python -m {_PROGRAM}",
        description="Tell whether this machine, or the nodes that mpiexec starts it "
        "on, are fit for training. Exit status: 0 all well, 1 something will hurt, 2 "
        "it can't run.",
    )
    add(parser, "--out", default="result", metavar="DIR", help="where results will go")
    add(
        parser,
        "--patience",
        type=number(float, 0, low_included=False),
        default=60.0,
        metavar="SECONDS",
        help="time after which a rank that waits for others ends all",
    )
    return parser.parse_args(argv)


def _refuse(rank, error):
    if rank == 0:
        complain(_PROGRAM, f"error: {error}")
    return 2


def _library(MPI):
    return MPI.Get_library_version().strip("\0 \n").splitlines()[0]


def _examine(out, world, at):
    """Look, measure and tell; all ranks do this together."""
    # Here, as import_error() has to come before.
    from mpi4py import MPI

    from chainer_crossbn import collectives, communicators
    from chainer_crossbn.commands.doctor import checks, disk, gpus, node, screen, timing
    from chainer_crossbn.commands.train import alike, devices

    at("the first exchange of messages")
    world.Barrier()
    seen = world.allgather({**node.seen(), "gpus": gpus.seen()})
    on_node = world.Split_type(MPI.COMM_TYPE_SHARED)
    node_sizes = world.allgather(on_node.size)
    findings = [*checks.of_nodes(seen, node_sizes), *checks.of_gpus(seen)]
    times = []
    wanted = Namespace(gpu=False, cpu=False, communicator=None)
    device, reason = devices.choose(wanted, world, on_node)
    choice = [f"device {device.name}: {reason}", f"gradients by {wanted.communicator}"]
    try:
        alike.check_alike(world, [])
        collectives.timeout()
        device.use()
        way = "MPI in host memory"
        if device.name.startswith("@cupy"):
            way = collectives.choose(world)
    except (UsageError, ValueError) as error:
        findings.append(Finding(FATAL, str(error)))
    else:
        choice.append(f"statistics by {way}")
        if world.size > 1:
            comm = communicators.create(wanted.communicator, world)
            times = timing.measure(comm, device, at)
    at("the end")
    result = 0
    if world.rank == 0:
        found = disk.look(out)
        findings += checks.of_times(times, os.getloadavg()[0])
        findings += checks.of_disk(found, out)
        told = [versions.described(), _library(MPI)]
        print("\n".join(screen.lines(told, seen, choice, times, found, findings)))
        sys.stdout.flush()
        result = status(findings)
    return world.bcast(result)
