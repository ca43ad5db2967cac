"""Groups of consecutive samples that have statistics of their own."""

import functools
from typing import NamedTuple

import numpy


class Groups(NamedTuple):
    """How the samples of a mini-batch are divided into groups.

    The mini-batch is the concatenation of those of ``virtual_ranks`` ranks, as
    :func:`numpy.array_split` divides it; ``size`` consecutive ranks make a group.

    Attributes:
        samples (int): Samples of the mini-batch, at least ``virtual_ranks``.
        virtual_ranks (int): Ranks whose mini-batches it holds.
        size (int): Virtual ranks in a group; divides their number.
    """

    samples: int
    virtual_ranks: int = 1
    size: int = 1

    @property
    def count(self):
        """int: Number of groups."""
        return self.virtual_ranks // self.size

    def starts(self, rows):
        """Return where the groups start in an array whose rows are in order of sample.

        Args:
            rows (int): Rows of the array, a multiple of :attr:`samples`.

        Returns:
            int64 array of shape (count + 1,): the first row of each group, then
            ``rows``.
        """
        return _starts(self, rows)


@functools.lru_cache(maxsize=1024)
def _starts(groups, rows):
    if groups.count == 1:
        return numpy.array([0, rows], numpy.int64)
    share, rest = divmod(groups.samples, groups.virtual_ranks)
    first_ranks = numpy.arange(0, groups.virtual_ranks + 1, groups.size)
    samples = first_ranks * share + numpy.minimum(first_ranks, rest)
    return samples * (rows // groups.samples)


WHOLE = Groups(1)  # one group, of any number of samples
