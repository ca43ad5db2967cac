"""Sets of images that are made when they are asked for."""

import copy

import numpy


class LazyImages:
    """Images that a mini-batch reads or draws one by one, where an array has them all.

    Indexing gives another such set, and makes no image. A subclass has ``_make``.

    Args:
        n (int): Number of images.
        side (int): Their height and width in pixels.
    """

    def __init__(self, n, side):
        self._numbers = numpy.arange(n)
        self._side = side

    @property
    def shape(self):
        """That of the array: (N, 3, side, side)."""
        return len(self._numbers), 3, self._side, self._side

    def __len__(self):
        return len(self._numbers)

    def __getitem__(self, chosen):
        part = copy.copy(self)
        part._numbers = self._numbers[chosen]
        return part

    def make(self, index, draw, out):
        """Make one image; threads may call it at once.

        Args:
            index (int): Which one.
            draw (tuple of int or None): What random changes to the image depend on,
                besides its index; None: there are none, as for testing.
            out (numpy.ndarray): Gets it, uint8 of shape (3, side, side).

        Raises:
            DatasetError: If it can't be made.
        """
        random = None
        if draw is not None:
            random = numpy.random.RandomState([*draw, index])
        self._make(self._numbers[index], random, out)
