"""Iterate over a data set that is split among the ranks."""

import copy
from collections.abc import Iterator as PythonIterator

import numpy
from chainer.dataset import Iterator

from chainer_crossbn.datasets.loading import Request


class ShareIterator(Iterator):
    """Yields this process's share of each global mini-batch, as indices.

    Each epoch has one global shuffle, the same on all ranks, cut into global batches
    of ``batchsize`` images per rank. The remaining images form a last batch, whose
    shares differ by at most one image; fewer images than ranks are dropped. A process
    with several virtual ranks gets their shares, one after the other.

    Args:
        n (int): Number of images, at least as many as ranks.
        batchsize (int): Images per rank.
        rank (int): This process.
        size (int): Number of processes.
        seed (int): Seed of the shuffles.
        virtual_ranks (int): Ranks per process.

    Attributes:
        dropped (int): Number of images that each epoch leaves out.
    """

    def __init__(
        self,
        n: int,
        batchsize: int,
        rank: int,
        size: int,
        seed: int,
        virtual_ranks: int = 1,
    ):
        n_ranks = size * virtual_ranks
        rest = n % (batchsize * n_ranks)
        self.dropped = rest if rest < n_ranks else 0
        self.epoch = 0
        self.is_new_epoch = False
        self._used = n - self.dropped
        self._n = n
        self._global_batchsize = batchsize * n_ranks
        self._first_rank = rank * virtual_ranks
        self._virtual_ranks = virtual_ranks
        self._n_ranks = n_ranks
        self._seed = seed
        self._position = 0
        self._previous_detail = -1.0
        self._order = self._shuffle()

    def _shuffle(self):
        state = numpy.random.RandomState([self._seed, self.epoch])
        return state.permutation(self._n)[: self._used]

    @property
    def epoch_detail(self):
        return self.epoch + self._position / self._used

    @property
    def previous_epoch_detail(self):
        return None if self._previous_detail < 0 else self._previous_detail

    def __next__(self):
        """Return the indices of this process's images and the size of the global batch.

        Returns:
            tuple: an int64 array of shape (n,), n >= 1, and an int.
        """
        self._previous_detail = self.epoch_detail
        end = self._position + self._global_batchsize
        batch = self._order[self._position : end]
        self._position += len(batch)
        self.is_new_epoch = self._position == self._used
        if self.is_new_epoch:
            self.epoch += 1
            self._position = 0
            self._order = self._shuffle()
        shares = numpy.array_split(batch, self._n_ranks)
        own = shares[self._first_rank : self._first_rank + self._virtual_ranks]
        return numpy.concatenate(own), len(batch)

    def coming(self) -> PythonIterator[Request]:
        """Return an endless iterator of requests for the next batches.

        It starts at the current batch of this iterator, and advances independently.
        Random numbers for an image depend on the seed and the epoch.
        """
        return _requests(copy.copy(self))

    def serialize(self, serializer):
        self.epoch = serializer("epoch", self.epoch)
        self.is_new_epoch = serializer("is_new_epoch", self.is_new_epoch)
        self._position = serializer("position", self._position)
        self._previous_detail = serializer("previous_detail", self._previous_detail)
        if self._position >= self._used:
            # On another number of ranks, which drops the rest of the epoch.
            self.epoch += 1
            self._position = 0
        self._order = self._shuffle()


def _requests(iterator):
    while True:
        draw = (iterator._seed, iterator.epoch)
        yield Request(next(iterator)[0], draw)
