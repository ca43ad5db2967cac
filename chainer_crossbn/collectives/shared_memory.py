"""Memory that the ranks of a node share."""

import os
from typing import Optional

import numpy

from chainer_crossbn import kernels

VARIABLE = "CHAINER_CROSSBN_COLLECTIVE"
_CACHE_LINE = 64


def is_usable(mpi_comm) -> bool:
    """Return whether the ranks of an MPI communicator can and may share memory.

    They can if they are on one node, and may unless ``CHAINER_CROSSBN_COLLECTIVE`` is
    ``mpi``.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks; all call this together.
    """
    # Imported here and below, as importing it starts MPI.
    from mpi4py import MPI

    node = mpi_comm.Split_type(MPI.COMM_TYPE_SHARED)
    n_ranks = node.size
    node.Free()
    permitted = os.environ.get(VARIABLE) != "mpi"
    return mpi_comm.allreduce(permitted and n_ranks == mpi_comm.size, MPI.LAND)


class Slots:
    """One array per rank, which the rank writes and all ranks read, turn by turn.

    Ranks only poll memory, so the last one to publish its array continues at once, and
    no rank has to be scheduled for another to continue.

    Args:
        mpi_comm (mpi4py.MPI.Comm): Ranks of one node; all call this together.
        size (int): Elements of an array.
        dtype: Dtype of the arrays.

    Attributes:
        size (int): As above.
    """

    def __init__(self, mpi_comm, size: int, dtype=numpy.float64):
        from mpi4py import MPI

        self.size = size
        n_ranks, rank = mpi_comm.size, mpi_comm.rank
        dtype = numpy.dtype(dtype)
        # Two arrays per rank, used alternately: when a rank writes one again, all ranks
        # have published the other since, and so have read this one.
        n_bytes = -(-size * dtype.itemsize // _CACHE_LINE) * _CACHE_LINE
        n_flags = n_ranks * _CACHE_LINE
        total = n_flags + 2 * n_ranks * n_bytes
        window = MPI.Win.Allocate_shared(total * (rank == 0), 1, comm=mpi_comm)
        memory = numpy.asarray(window.Shared_query(0)[0], numpy.uint8)[:total]
        flags = memory[:n_flags].view(numpy.int64).reshape(n_ranks, -1)
        self._arrays = memory[n_flags:].view(dtype).reshape(2, n_ranks, -1)
        # Per rank, in its own cache line: turns published, and tokens of two turns.
        self._turns, *self._tokens = flags.T[:3]
        self._rank = rank
        self._on_host = kernels.of(memory)
        self._turns[rank] = 0
        window.Lock_all(MPI.MODE_NOCHECK)
        self._memory_barrier = window.Sync
        mpi_comm.Barrier()

    def mine(self, turn: int) -> numpy.ndarray:
        """Return the array that this rank writes in a turn, of shape (size,)."""
        return self._arrays[turn % 2, self._rank, : self.size]

    def publish(self, turn: int, token: int) -> None:
        """Let the other ranks read this rank's array.

        Args:
            turn (int): 0, 1, 2 and so on.
            token (int): Identifies what was written.
        """
        self._tokens[turn % 2][self._rank] = token
        self._memory_barrier()
        self._turns[self._rank] = turn + 1

    def all_published(self, turn: int) -> bool:
        """Return whether all ranks have published their arrays."""
        return self._on_host.all_above(self._turns, turn)

    def all(self, turn: int, token: int) -> Optional[numpy.ndarray]:
        """Return the arrays of all ranks, once all are published.

        Returns:
            C-contiguous array of shape (n_ranks, at least size), so that kernels are
            compiled for one layout; ``None`` if a rank published another token.
        """
        self._memory_barrier()
        if not self._on_host.all_equal(self._tokens[turn % 2], token):
            return None
        return self._arrays[turn % 2]
