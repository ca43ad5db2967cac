"""What all data sets share: the container, its checksum, and balanced subsets."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy

from chainer_crossbn.datasets.lazy import LazyImages


class DatasetError(ValueError):
    """Data can't be loaded. The message is one line that says why and what to do."""


class ImageDataset(NamedTuple):
    """Labelled images for training and for testing.

    Images are C-contiguous uint8 arrays of shape (N, 3, h, w) in RGB order, or
    :class:`~chainer_crossbn.datasets.LazyImages` in their place. Labels are int32
    arrays of shape (N,) with values in ``range(n_class)``.

    Attributes:
        name (str): Name of the data set.
        n_class (int): Number of classes.
        train_images (numpy.ndarray or LazyImages): Images to train on.
        train_labels (numpy.ndarray): Their labels.
        test_images (numpy.ndarray or LazyImages): Images to test on.
        test_labels (numpy.ndarray): Their labels.
        checksum (str): SHA-256 in hexadecimal, of the arrays or of what lazy images are
            made from. Equal images and labels have equal checksums.
        notes (tuple of str): Lines that the user should see once.
    """

    name: str
    n_class: int
    train_images: numpy.ndarray | LazyImages
    train_labels: numpy.ndarray
    test_images: numpy.ndarray | LazyImages
    test_labels: numpy.ndarray
    checksum: str
    notes: tuple[str, ...] = ()


def from_arrays(
    name: str,
    n_class: int,
    train: tuple[numpy.ndarray, numpy.ndarray],
    test: tuple[numpy.ndarray, numpy.ndarray],
    notes: tuple[str, ...] = (),
) -> ImageDataset:
    """Return a data set of images in memory, with their checksum.

    Args:
        name (str): Name of the data set.
        n_class (int): Number of classes.
        train (tuple of numpy.ndarray): Images and labels, see :class:`ImageDataset`.
        test (tuple of numpy.ndarray): Likewise.
        notes (tuple of str): Lines that the user should see once.
    """
    checksum = hashlib.sha256()
    for images, labels in (train, test):
        # The number of images separates the two parts.
        checksum.update(b"%d\n" % len(labels))
        checksum.update(numpy.ascontiguousarray(images).data)
        checksum.update(labels.astype("<i4").data)
    return ImageDataset(
        name=name,
        n_class=n_class,
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
        checksum=checksum.hexdigest(),
        notes=notes,
    )


def take_balanced(labels: numpy.ndarray, size: int, n_class: int) -> numpy.ndarray:
    """Choose images so that all classes have equally many.

    The order of choice is the first image of each class, then the second of each, and
    so on. The numbers of images per class therefore differ by one at most, unless a
    class runs out, and a smaller subset is part of any larger one.

    Args:
        labels (numpy.ndarray): Integers in ``range(n_class)``, of shape (N,).
        size (int): Number of images to choose.
        n_class (int): Number of classes.

    Returns:
        numpy.ndarray: Their indices, ascending, int64 of shape (size,).

    Raises:
        DatasetError: If there are fewer than ``size`` images, or ``size`` is below 1.
    """
    if not 1 <= size <= len(labels):
        raise DatasetError(f"{size} images requested; choose from 1 to {len(labels)}")
    by_class = numpy.argsort(labels, kind="stable")
    counts = numpy.bincount(labels, minlength=n_class)
    firsts = numpy.cumsum(counts) - counts
    place_in_class = numpy.empty(len(labels), numpy.int64)
    place_in_class[by_class] = numpy.arange(len(labels)) - numpy.repeat(firsts, counts)
    chosen = numpy.lexsort((labels, place_in_class))[:size]
    return numpy.sort(chosen).astype(numpy.int64, copy=False)


def select(
    labels: numpy.ndarray, size: int | None, n_class: int, option: str
) -> slice | numpy.ndarray:
    """Return an index of images: :func:`take_balanced`, or all where no size is given.

    Args:
        labels (numpy.ndarray): Integers in ``range(n_class)``, of shape (N,).
        size (int or None): Number of images to choose.
        n_class (int): Number of classes.
        option (str): Option that gives the size, for the message of an error.

    Raises:
        DatasetError: If there are fewer than ``size`` images, or ``size`` is below 1.
    """
    if size is None:
        return slice(None)
    try:
        return take_balanced(labels, size, n_class)
    except DatasetError as error:
        raise DatasetError(f"{option}: {error}") from None
