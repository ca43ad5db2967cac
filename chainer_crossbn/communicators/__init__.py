"""ChainerMN communicators."""

import chainermn
from chainermn.communicators.communicator_base import CommunicatorBase

from chainer_crossbn.communicators.host import HostCommunicator
from chainer_crossbn.communicators.staged import StagedCommunicator

__all__ = ["HostCommunicator", "StagedCommunicator", "create"]

_OWN = {"host": HostCommunicator, "staged": StagedCommunicator}


def create(name: str, mpi_comm) -> CommunicatorBase:
    """Create a communicator by name.

    Args:
        name (str): ``host``, ``staged``, or a name for
            :func:`chainermn.create_communicator`.
        mpi_comm (mpi4py.MPI.Comm): All ranks.

    Returns:
        ChainerMN communicator.
    """
    if name in _OWN:
        return _OWN[name](mpi_comm)
    return chainermn.create_communicator(name, mpi_comm)
