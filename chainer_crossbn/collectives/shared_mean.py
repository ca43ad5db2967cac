"""Averages over the ranks of a node, in memory that they share."""

from chainer_crossbn import kernels
from chainer_crossbn.collectives import yield_core
from chainer_crossbn.collectives.shared_memory import Slots
from chainer_crossbn.errors import CollectiveError

_MOST_READERS = 2
# Of all blocks together: containers may have no more than 64 MB of shared memory.
_SHARED_BYTES = 16 << 20
_MOST_BLOCK_BYTES = 1 << 20


def block_bytes(n_ranks):
    """Return the size of the largest block that so many ranks average at once."""
    # Of each rank there are two blocks, taken in turn.
    return min(_MOST_BLOCK_BYTES, _SHARED_BYTES // (2 * n_ranks) // 64 * 64)


class SharedMean:
    """Averages blocks of the ranks of a node, in memory that they share.

    Sums are in the order of the ranks, so that all get the same bits. Two ranks read
    both blocks; of more, each averages a share and reads the other shares.

    Args:
        mpi_comm (mpi4py.MPI.Comm): Ranks of one node, which call this together.
        dtype (numpy.dtype): Of the blocks, float32 or float64.
    """

    def __init__(self, mpi_comm, dtype):
        size = block_bytes(mpi_comm.size) // dtype.itemsize
        self._n_ranks, self._rank = mpi_comm.size, mpi_comm.rank
        self._blocks = Slots(mpi_comm, size, dtype)
        self._shares = None
        if mpi_comm.size > _MOST_READERS:
            self._shares = Slots(mpi_comm, -(-size // mpi_comm.size), dtype)
        self._factor = dtype.type(1 / mpi_comm.size)
        self._turn = 0

    def of(self, block):
        """Average a block over the ranks, in place; all call it.

        Args:
            block: Contiguous array of shape (m,), of at most :func:`block_bytes`.

        Raises:
            CollectiveError: If the ranks have blocks of different sizes.
        """
        turn, self._turn = self._turn, self._turn + 1
        self._blocks.mine(turn)[: block.size] = block
        blocks = _all(self._blocks, turn, block.size)[:, : block.size]
        mean_rows = kernels.of(block).mean_rows
        if self._shares is None:
            mean_rows(blocks, self._factor, block)
            return
        # Each rank averages a share, and reads those of all.
        size = -(-block.size // self._n_ranks)
        mine = slice(self._rank * size, min((self._rank + 1) * size, block.size))
        n_mine = max(mine.stop - mine.start, 0)
        if n_mine:
            mean_rows(blocks[:, mine], self._factor, self._shares.mine(turn)[:n_mine])
        shares = _all(self._shares, turn, block.size)
        for rank in range(self._n_ranks):
            part = block[rank * size : (rank + 1) * size]
            part[:] = shares[rank, : part.size]


def _all(slots, turn, size):
    """Return what all ranks have written, when they have."""
    slots.publish(turn, size)
    while not slots.are_there(turn):
        yield_core()
    written = slots.all(turn, size)
    if written is None:
        raise CollectiveError(
            f"the ranks average different gradients: not all have a block of {size}"
        )
    return written
