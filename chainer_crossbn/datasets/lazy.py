"""Images that are made on demand."""

from __future__ import annotations

import copy

import numpy


class LazyImages:
    """Images that are decoded or drawn one by one, in place of an array of all.

    Indexing returns another such object and makes no image. Subclasses define
    ``_make(number, random, out)``.

    Args:
        n (int): Number of images.
        side (int): Height and width of the images in pixels.
    """

    def __init__(self, n: int, side: int) -> None:
        self._numbers = numpy.arange(n)
        self._side = side

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array of all images: (N, 3, side, side)."""
        return len(self._numbers), 3, self._side, self._side

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, chosen) -> LazyImages:
        subset = copy.copy(self)
        subset._numbers = self._numbers[chosen]
        return subset

    def make(
        self, index: int, draw: tuple[int, ...] | None, out: numpy.ndarray
    ) -> None:
        """Make one image. Threads may call this method simultaneously.

        Args:
            index (int): Index of the image.
            draw (tuple of int or None): Seed, besides the index, of random changes to
                the image. None makes the image without changes, as for testing.
            out (numpy.ndarray): Receives the image, uint8 of shape (3, side, side).

        Raises:
            DatasetError: If the image can't be made.
        """
        random = None
        if draw is not None:
            random = numpy.random.RandomState([*draw, index])
        self._make(self._numbers[index], random, out)

    def _make(
        self,
        number: int,
        random: numpy.random.RandomState | None,
        out: numpy.ndarray,
    ) -> None:
        """Make the image of a number, with random changes if ``random`` is given."""
        raise NotImplementedError
