"""What each rank has to tell the others after an iteration, at no cost to the step."""

import numpy


class Agreement:
    """Sums small vectors over the ranks, and has the sum one iteration later.

    By then the all-reduce of the gradients has carried it along, so that nobody waits;
    and all ranks learn the same thing after the same iteration.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
        size (int): Numbers to tell.
    """

    def __init__(self, mpi_comm, size):
        self._mpi_comm = mpi_comm.Dup()
        self._mine = numpy.zeros(size)
        self._total = numpy.zeros(size)
        self._request = None

    def hear(self):
        """Return the sum of what all ranks told last, as float64 array; it may wait."""
        if self._request is not None:
            self._request.Wait()
            self._request = None
        return self._total.copy()

    def tell(self, numbers):
        """Begin to sum numbers; return the sum of those before, at first zeros."""
        before = self.hear()
        self._mine[:] = numbers
        self._request = self._mpi_comm.Iallreduce(self._mine, self._total)
        return before
