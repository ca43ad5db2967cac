"""Choose the device and the communicator of a run."""

import os
from argparse import Namespace

import chainer
from chainer.backends import cuda
from mpi4py import MPI

from chainer_crossbn.collectives import choice
from chainer_crossbn.errors import UsageError


def choose(
    args: Namespace, world: MPI.Comm, node: MPI.Comm
) -> tuple[chainer.backend.Device, str]:
    """Choose CPU or GPU, the same for all ranks, and a communicator to match.

    Ranks that see the same GPUs take them in turn. A launcher may also show each rank
    different GPUs.

    Args:
        args (argparse.Namespace): With ``gpu``, ``cpu`` and ``communicator``, which is
            set if it is ``None``.
        world (mpi4py.MPI.Comm): All ranks, which call this together.
        node (mpi4py.MPI.Comm): The ranks on the same machine.

    Returns:
        tuple: The :class:`chainer.backend.Device` of this rank, and the reason for it.

    Raises:
        UsageError: On all ranks, if the requested device is not available.
    """
    gpus = _visible_gpus()
    gpus_of_ranks = node.allgather(gpus)
    peers = [rank for rank, others in enumerate(gpus_of_ranks) if others == gpus]
    # Through host memory, several ranks may use one GPU.
    needed = 1 if args.communicator == "staged" else len(peers)
    enough = world.allreduce(len(gpus) >= needed, MPI.LAND)
    if args.gpu and not enough:
        n_gpus = world.allreduce(len(set().union(*gpus_of_ranks)), MPI.MIN)
        if not cuda.available:
            raise UsageError(
                "--gpu: Chainer finds no working CuPy; install it with its CUDA "
                "libraries or use --cpu"
            )
        raise UsageError(
            f"--gpu: CuPy sees {n_gpus} {'GPU' if n_gpus == 1 else 'GPUs'} on a node "
            f"with {node.size} ranks; start fewer ranks on it, let them share GPUs by "
            "--communicator staged, or use --cpu"
        )
    if enough and not args.cpu:
        by_nccl = world.allreduce(choice.has_nccl(), MPI.LAND)
        default = "pure_nccl" if by_nccl else "staged"
        args.communicator = args.communicator or default
        shared = world.allreduce(len(gpus) < len(peers), MPI.LOR)
        reason = "shared by the ranks of a node" if shared else "a GPU for each rank"
        index = peers.index(node.rank) % len(gpus)
        return chainer.get_device(f"@cupy:{index}"), reason
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


def _visible_gpus():
    """Return identifiers, unique on the node, of the GPUs that this rank sees."""
    if not cuda.available:
        return []
    try:
        count = cuda.cupy.cuda.runtime.getDeviceCount()
    except cuda.cupy.cuda.runtime.CUDARuntimeError:  # no driver, or no device
        return []
    return [cuda.cupy.cuda.Device(index).pci_bus_id for index in range(count)]


def count_cores(node: MPI.Comm) -> int:
    """Count the cores that the ranks of a node may use (they may be bound to some).

    Args:
        node (mpi4py.MPI.Comm): The ranks on this machine, which call this together.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len(set().union(*node.allgather(os.sched_getaffinity(0))))
