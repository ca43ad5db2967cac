"""What this machine has for the ranks to compute on."""

import os

import chainer
from chainer.backends import cuda
from mpi4py import MPI

from chainer_crossbn.collectives import choice
from chainer_crossbn.command_line import UsageError


def choose(args, world, node):
    """Choose CPU or GPU, alike on all ranks, and the communicator that goes with it.

    Args:
        args (argparse.Namespace): With ``gpu``, ``cpu`` and ``communicator``, which is
            set where it is ``None``.
        world (mpi4py.MPI.Comm): All ranks, which call this together.
        node (mpi4py.MPI.Comm): Those on the same machine.

    Returns:
        tuple: The :class:`chainer.backend.Device` of this rank and, in words, why.

    Raises:
        UsageError: On all ranks, if what was asked for is not there.
    """
    gpus = _count_gpus()
    # Through host memory several ranks may use one GPU.
    needed = 1 if args.communicator == "staged" else node.size
    enough = world.allreduce(gpus >= needed, MPI.LAND)
    if args.gpu and not enough:
        found = world.allreduce(gpus, MPI.MIN)
        if not cuda.available:
            raise UsageError(
                "--gpu: Chainer finds no working CuPy; install it with its CUDA "
                "libraries or use --cpu"
            )
        raise UsageError(
            f"--gpu: CuPy sees {found} GPUs on a node with {node.size} ranks; start "
            "fewer ranks on it, let them share GPUs by --communicator staged, or use "
            "--cpu"
        )
    if enough and not args.cpu:
        by_nccl = world.allreduce(choice.has_nccl(), MPI.LAND)
        default = "pure_nccl" if by_nccl else "staged"
        args.communicator = args.communicator or default
        shared = world.allreduce(gpus < node.size, MPI.LOR)
        reason = "shared by the ranks of a node" if shared else "a GPU for each rank"
        return chainer.get_device(f"@cupy:{node.rank % gpus}"), reason
    args.communicator = args.communicator or "host"
    if args.communicator not in ("host", "naive"):
        raise UsageError(
            f"--communicator {args.communicator} needs GPUs; on CPUs leave it out"
        )
    if args.cpu:
        reason = "--cpu"
    elif cuda.available:
        reason = "CuPy sees no GPU for each rank"
    else:
        reason = "Chainer finds no working CuPy"
    return chainer.get_device("@numpy"), reason


def _count_gpus():
    if not cuda.available:
        return 0
    try:
        return cuda.cupy.cuda.runtime.getDeviceCount()
    except cuda.cupy.cuda.runtime.CUDARuntimeError:  # no driver, or no device
        return 0


def count_cores(node):
    """Count the cores that the ranks of a node may use, which may be bound to some.

    Args:
        node (mpi4py.MPI.Comm): The ranks on this machine, which call this together.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count()
    return len(set().union(*node.allgather(os.sched_getaffinity(0))))
