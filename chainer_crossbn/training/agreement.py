"""Share small vectors over the ranks after each iteration, without waiting."""

import numpy


class Agreement:
    """Sums small vectors over the ranks, with the result one iteration later.

    By then the all-reduce of the gradients has driven the sum to its end, so no rank
    waits, and all ranks get the same result after the same iteration.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
        size (int): Length of the vectors.
    """

    def __init__(self, mpi_comm, size: int):
        self._mpi_comm = mpi_comm.Dup()
        self._own = numpy.zeros(size)
        self._total = numpy.zeros(size)
        self._request = None

    def wait(self) -> numpy.ndarray:
        """Return the sum of the vectors shared last, float64; this may wait."""
        if self._request is not None:
            self._request.Wait()
            self._request = None
        return self._total.copy()

    def share(self, vector) -> numpy.ndarray:
        """Start to sum a vector; return the previous sum, zeros at first."""
        previous = self.wait()
        self._own[:] = vector
        self._request = self._mpi_comm.Iallreduce(self._own, self._total)
        return previous
