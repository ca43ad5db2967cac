"""Dropout with random numbers of each rank's own."""

import chainer
import chainer.functions as F
import numpy
from chainer import backend

from chainer_crossbn.kernels import Groups


class RankDropout:
    """Dropout in which each rank that a process computes for draws its own masks.

    A mini-batch is the concatenation of the ranks' mini-batches, as
    :func:`numpy.array_split` divides it. On CPUs a rank draws what
    :func:`chainer.functions.dropout` would draw from the same seed.

    Args:
        seeds (sequence of int): One for each rank, at least one.
        xp: Module of the arrays, :mod:`numpy` or :mod:`cupy`.

    Example::

        dropout = RankDropout([0, 1], numpy)  # two ranks
        y = dropout(x, 0.5)
    """

    def __init__(self, seeds, xp):
        self._xp = xp
        self._generators = [xp.random.RandomState(seed) for seed in seeds]

    @property
    def n_ranks(self):
        """int: Number of ranks."""
        return len(self._generators)

    def __call__(self, x, ratio):
        """Drop elements in training, and scale the others by ``1 / (1 - ratio)``.

        Args:
            x (Variable or array): Shape (N, ...), at least one sample for each rank.
            ratio (float): Probability with which an element is dropped.

        Returns:
            Variable: Same shape and dtype as ``x``.
        """
        if ratio == 0 or not chainer.config.train:
            return chainer.as_variable(x)
        starts = Groups(len(x), self.n_ranks).starts(len(x))
        passed = [
            generator.random_sample((size, *x.shape[1:])) >= ratio
            for generator, size in zip(self._generators, numpy.diff(starts).tolist())
        ]
        scale = x.dtype.type(1 / (1 - ratio))
        xp = backend.get_array_module(x)
        return F.dropout(x, ratio, mask=scale * xp.concatenate(passed))

    def states(self):
        """Return what :func:`numpy.random.set_state` takes, for each rank.

        Returns:
            list of tuple or None: ``None`` on GPUs, as CuPy does not provide it.
        """
        if self._xp is not numpy:
            return None
        return [generator.get_state() for generator in self._generators]

    def set_states(self, states):
        """Continue where :meth:`states` was called, with as many ranks."""
        for generator, state in zip(self._generators, states):
            generator.set_state(state)
