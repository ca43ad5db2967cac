"""Memory that the ranks of a node share."""

import os

import numpy

from chainer_crossbn import kernels

VARIABLE = "CHAINER_CROSSBN_COLLECTIVE"
_CACHE_LINE = 64


def is_usable(mpi_comm):
    """Return whether all ranks of an MPI communicator share memory, and may use it.

    They may unless ``CHAINER_CROSSBN_COLLECTIVE`` is ``mpi``.

    Args:
        mpi_comm (mpi4py.MPI.Comm): The ranks, which call this together.
    """
    # Imported here and below, as importing it starts MPI.
    from mpi4py import MPI

    node = mpi_comm.Split_type(MPI.COMM_TYPE_SHARED)
    n_ranks = node.size
    node.Free()
    permitted = os.environ.get(VARIABLE) != "mpi"
    return mpi_comm.allreduce(permitted and n_ranks == mpi_comm.size, MPI.LAND)


class Slots:
    """Arrays of which each rank writes its own, turn by turn, and reads all.

    Whichever rank comes last to a turn goes on at once, and none has to be scheduled
    for another to see what is there.

    Args:
        mpi_comm (mpi4py.MPI.Comm): Ranks of one node, which call this together.
        size (int): Elements of an array.
        dtype: Their dtype.

    Attributes:
        size (int): As given.
    """

    def __init__(self, mpi_comm, size, dtype=numpy.float64):
        from mpi4py import MPI

        self.size = size
        n_ranks, rank = mpi_comm.size, mpi_comm.rank
        dtype = numpy.dtype(dtype)
        # Two arrays a rank: who writes to the first again has seen all ranks at the
        # second, so that they have read it.
        n_bytes = -(-size * dtype.itemsize // _CACHE_LINE) * _CACHE_LINE
        n_flags = n_ranks * _CACHE_LINE
        whole = n_flags + 2 * n_ranks * n_bytes
        window = MPI.Win.Allocate_shared(whole * (rank == 0), 1, comm=mpi_comm)
        memory = numpy.frombuffer(window.Shared_query(0)[0], numpy.uint8, whole)
        flags = memory[:n_flags].view(numpy.int64).reshape(n_ranks, -1)
        self._arrays = memory[n_flags:].view(dtype).reshape(2, n_ranks, -1)
        # In a cache line of a rank's own: its turn, and the tokens of two turns.
        self._turns, *self._tokens = flags.T[:3]
        self._rank = rank
        self._on_host = kernels.of(memory)
        self._turns[rank] = 0
        window.Lock_all(MPI.MODE_NOCHECK)
        # Puts in order what is written, and read, before and after.
        self._in_order = window.Sync
        mpi_comm.Barrier()

    def mine(self, turn):
        """Return what this rank writes to at a turn, an array of shape (size,)."""
        return self._arrays[turn % 2, self._rank, : self.size]

    def publish(self, turn, token):
        """Say that this rank has written.

        Args:
            turn (int): 0, 1, 2 and so on.
            token (int): Tells what was written.
        """
        self._tokens[turn % 2][self._rank] = token
        self._in_order()
        self._turns[self._rank] = turn + 1

    def are_there(self, turn):
        """Return whether all ranks have said so."""
        return self._on_host.all_above(self._turns, turn)

    def all(self, turn, token):
        """Return what all ranks have written, when they have.

        Returns:
            C-contiguous array of shape (n_ranks, at least size), so that kernels are
            compiled for one layout; ``None`` if a rank gave another token.
        """
        self._in_order()
        if not self._on_host.all_equal(self._tokens[turn % 2], token):
            return None
        return self._arrays[turn % 2]
