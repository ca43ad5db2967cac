"""By which way vectors on GPUs are reduced."""

import os

from chainer.backends import cuda

VARIABLE = "CHAINER_CROSSBN_COLLECTIVE"
MPI, STAGED, NCCL = WAYS = "mpi", "staged", "nccl"


def asked_for():
    """Return what ``CHAINER_CROSSBN_COLLECTIVE`` says, ``None`` where it is not set.

    Raises:
        ValueError: If it is none of :data:`WAYS`.
    """
    way = os.environ.get(VARIABLE) or None
    if way not in (None, *WAYS):
        raise ValueError(f"{VARIABLE} is {way!r}; set it to {', '.join(WAYS)} or not")
    return way


def choose(mpi_comm):
    """Choose how vectors on the ranks' current devices are reduced.

    NCCL wants a device for each rank. Where there is none, vectors are staged in host
    memory; that of MPI libraries that take addresses on the device is not to be seen
    from here, so that it has to be asked for.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks, which call this together.

    Returns:
        str: ``"nccl"``, ``"staged"`` or ``"mpi"``, the same on all ranks.

    Raises:
        ValueError: On all ranks, if ``CHAINER_CROSSBN_COLLECTIVE`` is not the same, or
            none of these.
    """
    try:
        asked = asked_for()
    except ValueError as error:
        asked = str(error)
    found = mpi_comm.allgather((asked, _device(mpi_comm)))
    ways = {way for way, _ in found}
    for way in ways:
        if way not in (None, *WAYS):
            raise ValueError(way)
    if len(ways) > 1:
        raise ValueError(f"{VARIABLE} is not the same on all ranks")
    (way,) = ways
    if way:
        return way
    devices = {device for _, device in found}
    return NCCL if None not in devices and len(devices) == len(found) else STAGED


def _device(mpi_comm):
    """Return what tells this rank's device from all others, ``None`` without NCCL."""
    from mpi4py import MPI

    if not getattr(cuda.cupy.cuda, "nccl", None) or not cuda.cupy.cuda.nccl.available:
        return None
    return MPI.Get_processor_name(), cuda.cupy.cuda.Device().pci_bus_id
