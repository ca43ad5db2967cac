"""What this machine has for the ranks to compute on."""

import os

import chainer
from chainer.backends import cuda
from mpi4py import MPI

from chainer_crossbn.collectives import choice
from chainer_crossbn.errors import UsageError


def choose(args, world, node):
    """Choose CPU or GPU, alike on all ranks, and the communicator that goes with it.

    Ranks that see the same GPUs take them in turn; a launcher may also show each rank
    GPUs of its own.

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
    gpus = _visible()
    seen = node.allgather(gpus)
    peers = [rank for rank, others in enumerate(seen) if others == gpus]
    # Through host memory several ranks may use one GPU.
    needed = 1 if args.communicator == "staged" else len(peers)
    enough = world.allreduce(len(gpus) >= needed, MPI.LAND)
    if args.gpu and not enough:
        found = world.allreduce(len(set().union(*seen)), MPI.MIN)
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
        shared = world.allreduce(len(gpus) < len(peers), MPI.LOR)
        reason = "shared by the ranks of a node" if shared else "a GPU for each rank"
        mine = peers.index(node.rank) % len(gpus)
        return chainer.get_device(f"@cupy:{mine}"), reason
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


def _visible():
    """Return what tells the GPUs that this rank sees from others of the node."""
    if not cuda.available:
        return []
    try:
        count = cuda.cupy.cuda.runtime.getDeviceCount()
    except cuda.cupy.cuda.runtime.CUDARuntimeError:  # no driver, or no device
        return []
    return [cuda.cupy.cuda.Device(index).pci_bus_id for index in range(count)]


def count_cores(node):
    """Count the cores that the ranks of a node may use, which may be bound to some.

    Args:
        node (mpi4py.MPI.Comm): The ranks on this machine, which call this together.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count()
    return len(set().union(*node.allgather(os.sched_getaffinity(0))))
