"""All-reduces of vectors in memory that the ranks of a node share."""

import numpy

from chainer_crossbn import kernels


class SharedStep:
    """An agreed all-reduce in shared memory.

    Args:
        layer (str): Names it.
        size (int): Numbers of its vector.
        number (int): Tells it from all others.
        merging (bool): Whether moments are merged, and not vectors summed.
        slots (Slots): Of its ranks, of at least ``size`` float64 numbers.
    """

    def __init__(self, layer, size, number, merging, slots):
        self.layer = layer
        self.size = size
        self._number = number
        self._slots = slots
        on_host = kernels.of(numpy.empty(0))
        self._reduce = on_host.merge_rows if merging else on_host.sum_rows
        self._turn = None

    def start(self, mpi_comm, vector, turn):
        """Give this rank's vector."""
        self._turn = turn
        self._slots.mine(turn)[: self.size] = vector
        self._slots.publish(turn, self._number)

    def done(self):
        """Return whether all ranks have given theirs."""
        return self._slots.are_there(self._turn)

    def result(self):
        """Return what came out, ``None`` if a rank was at another all-reduce."""
        vectors = self._slots.all(self._turn, self._number)
        if vectors is None:
            return None
        result = numpy.empty(self.size)
        self._reduce(vectors, result)
        return result
