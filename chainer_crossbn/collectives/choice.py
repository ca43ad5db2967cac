"""Choose how vectors are reduced."""

import os
from typing import Optional

from chainer.backends import cuda

from chainer_crossbn.collectives.shared_memory import VARIABLE, is_usable

MPI, SHARED, STAGED, NCCL = TRANSPORTS = "mpi", "shared", "staged", "nccl"


def requested() -> Optional[str]:
    """Return the value of ``CHAINER_CROSSBN_COLLECTIVE``, ``None`` if it is not set.

    Raises:
        ValueError: If it is none of :data:`TRANSPORTS`.
    """
    transport = os.environ.get(VARIABLE) or None
    if transport not in (None, *TRANSPORTS):
        supported = ", ".join(TRANSPORTS)
        raise ValueError(f"{VARIABLE} is {transport!r}; set it to {supported} or not")
    return transport


def choose(mpi_comm, on_gpu: bool = True) -> str:
    """Choose how vectors are reduced over the ranks, on their current devices.

    In host memory, ranks of one node share memory unless MPI is requested. On GPUs,
    NCCL is chosen if each rank has a device of its own, and else vectors are staged in
    host memory. Whether an MPI library takes addresses on GPUs can't be detected, so it
    must be requested.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks; all call this together.
        on_gpu (bool): Whether the vectors are on GPUs.

    Returns:
        str: For GPUs ``"nccl"``, ``"staged"`` or ``"mpi"``, for host memory
        ``"shared"`` or ``"mpi"``; the same on all ranks.

    Raises:
        ValueError: On all ranks, if ``CHAINER_CROSSBN_COLLECTIVE`` differs between the
            ranks, or is not supported here.
    """
    transport = _agree_on_request(mpi_comm)
    if not on_gpu:
        shared = is_usable(mpi_comm)
        if transport == SHARED and not shared:
            raise ValueError(
                f"{VARIABLE} is shared, but the ranks are on several nodes"
            )
        return SHARED if shared else MPI
    devices = mpi_comm.allgather(_device())
    nccl_fits = None not in devices and len(set(devices)) == len(devices)
    if transport == NCCL and not nccl_fits:
        reason = "CuPy has no NCCL" if None in devices else "ranks share a GPU"
        raise ValueError(f"{VARIABLE} is nccl, but {reason}")
    if transport == SHARED:
        return STAGED
    return transport or (NCCL if nccl_fits else STAGED)


def _agree_on_request(mpi_comm):
    """Return what was requested on all ranks, or raise the same error on all."""
    try:
        request, error = requested(), None
    except ValueError as caught:
        request, error = None, str(caught)
    requests, errors = zip(*mpi_comm.allgather((request, error)))
    for error in filter(None, errors):
        raise ValueError(error)
    if len(set(requests)) > 1:
        raise ValueError(f"{VARIABLE} is not the same on all ranks")
    return request


def has_nccl() -> bool:
    """Return whether CuPy has NCCL."""
    return getattr(getattr(cuda.cupy.cuda, "nccl", None), "available", False)


def _device():
    """Return a value unique to this rank's device, ``None`` without NCCL."""
    from mpi4py import MPI

    if not has_nccl():
        return None
    return MPI.Get_processor_name(), cuda.cupy.cuda.Device().pci_bus_id
