"""Average over the ranks of a node in memory that they share."""

import numpy

from chainer_crossbn import kernels
from chainer_crossbn.collectives.limits import yield_core
from chainer_crossbn.collectives.shared_memory import Slots
from chainer_crossbn.errors import CollectiveError

_MAX_READERS = 2
# All blocks together. Containers often have 64 MB of shared memory.
_SHARED_BYTES = 16 << 20
_MAX_BLOCK_BYTES = 1 << 20


def block_bytes(n_ranks: int) -> int:
    """Return the size of the largest block that :class:`SharedMean` takes."""
    # Each rank has two blocks, used alternately.
    return min(_MAX_BLOCK_BYTES, _SHARED_BYTES // (2 * n_ranks) // 64 * 64)


class SharedMean:
    """Averages blocks over the ranks of a node in memory that they share.

    Sums are in the order of the ranks, so all get the same bits. Two ranks both average
    the whole block; of more ranks, each averages a share and reads the other shares.

    Args:
        mpi_comm (mpi4py.MPI.Comm): Ranks of one node; all call this together.
        dtype (numpy.dtype): Dtype of the blocks, float32 or float64.
    """

    def __init__(self, mpi_comm, dtype: numpy.dtype):
        size = block_bytes(mpi_comm.size) // dtype.itemsize
        self._n_ranks, self._rank = mpi_comm.size, mpi_comm.rank
        self._blocks = Slots(mpi_comm, size, dtype)
        self._shares = None
        if mpi_comm.size > _MAX_READERS:
            self._shares = Slots(mpi_comm, -(-size // mpi_comm.size), dtype)
        self._factor = dtype.type(1 / mpi_comm.size)
        self._turn = 0

    def average(self, block: numpy.ndarray) -> None:
        """Average a block over the ranks in place; all call this together.

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
    """Publish this rank's array, and return those of all ranks."""
    slots.publish(turn, size)
    while not slots.all_published(turn):
        yield_core()
    arrays = slots.all(turn, size)
    if arrays is None:
        raise CollectiveError(
            f"the ranks average different gradients: not all have a block of {size}"
        )
    return arrays
