"""Random shifts and flips of images in memory, as is usual for CIFAR."""

from __future__ import annotations

import functools

import numpy

_PADDING = 4
# Separates these random numbers from all others that have the same seed.
_STREAM = (0, 0)


def augment(
    images: numpy.ndarray, indices: numpy.ndarray, draw: tuple[int, ...], size: int
) -> numpy.ndarray:
    """Pad images by 4 zeros on each side, crop them at random, and flip half of them.

    The random numbers of an image depend on its index and on ``draw`` alone, not on the
    mini-batch that it is in.

    Args:
        images (numpy.ndarray): Any dtype, shape (n, c, h, w).
        indices (numpy.ndarray): Indices of the images in the data set, int64, shape
            (n,).
        draw (tuple of int): Seed, besides the indices, such as seed and epoch.
        size (int): Number of images of the data set.

    Returns:
        numpy.ndarray: Of the same shape and dtype; the arguments stay as they are.
    """
    n, _, height, width = images.shape
    top, left, flipped = _numbers(draw, size)[indices].T
    padding = (_PADDING, _PADDING)
    padded = numpy.pad(images, ((0, 0), (0, 0), padding, padding))
    windows = numpy.lib.stride_tricks.sliding_window_view(
        padded, (height, width), axis=(2, 3)
    )
    crops = windows[numpy.arange(n), :, top, left]
    return numpy.where(flipped[:, None, None, None], crops[..., ::-1], crops)


@functools.lru_cache(maxsize=2)
def _numbers(draw, n):
    """Return top, left and flip of all images, int64 of shape (n, 3)."""
    random = numpy.random.RandomState([*draw, *_STREAM])
    return random.randint(0, [2 * _PADDING + 1, 2 * _PADDING + 1, 2], (n, 3))
