"""By which way vectors are reduced."""

import os

from chainer.backends import cuda

from chainer_crossbn.collectives.shared_memory import VARIABLE, is_usable

MPI, SHARED, STAGED, NCCL = WAYS = "mpi", "shared", "staged", "nccl"


def asked_for():
    """Return what ``CHAINER_CROSSBN_COLLECTIVE`` says, ``None`` where it is not set.

    Raises:
        ValueError: If it is none of :data:`WAYS`.
    """
    way = os.environ.get(VARIABLE) or None
    if way not in (None, *WAYS):
        raise ValueError(f"{VARIABLE} is {way!r}; set it to {', '.join(WAYS)} or not")
    return way


def choose(mpi_comm, on_gpu=True):
    """Choose how the ranks' vectors are reduced, on their current devices if on GPUs.

    In host memory ranks of one node share it, unless MPI is asked for. NCCL wants a
    device for each rank. Where there is none, vectors are staged in host memory (shared
    or not); that of MPI libraries that take addresses on the device is not to be seen
    from here, so that it has to be asked for.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks, which call this together.
        on_gpu (bool): Whether the vectors are on GPUs.

    Returns:
        str: ``"nccl"``, ``"staged"`` or ``"mpi"``, the same on all ranks; in host
        memory ``"shared"`` or ``"mpi"``.

    Raises:
        ValueError: On all ranks, if ``CHAINER_CROSSBN_COLLECTIVE`` is not the same, or
            none of these, or NCCL where it can't be.
    """
    try:
        asked = asked_for()
    except ValueError as error:
        asked = str(error)
    found = mpi_comm.allgather((asked, _device() if on_gpu else None))
    ways = {way for way, _ in found}
    for way in ways:
        if way not in (None, *WAYS):
            raise ValueError(way)
    if len(ways) > 1:
        raise ValueError(f"{VARIABLE} is not the same on all ranks")
    (way,) = ways
    if not on_gpu:
        shared = is_usable(mpi_comm)
        if way == SHARED and not shared:
            raise ValueError(
                f"{VARIABLE} is shared, but the ranks are on several nodes"
            )
        return SHARED if shared else MPI
    devices = {device for _, device in found}
    fits_nccl = None not in devices and len(devices) == len(found)
    if way == NCCL and not fits_nccl:
        reason = "CuPy has no NCCL" if None in devices else "ranks share a GPU"
        raise ValueError(f"{VARIABLE} is nccl, but {reason}")
    if way == SHARED:
        return STAGED
    return way or (NCCL if fits_nccl else STAGED)


def has_nccl():
    """Return whether CuPy has NCCL."""
    return getattr(getattr(cuda.cupy.cuda, "nccl", None), "available", False)


def _device():
    """Return what tells this rank's device from all others, ``None`` without NCCL."""
    from mpi4py import MPI

    if not has_nccl():
        return None
    return MPI.Get_processor_name(), cuda.cupy.cuda.Device().pci_bus_id
