"""What all data sets have in common: the container, its checksum, balanced subsets."""

import hashlib
from typing import NamedTuple

import numpy


class DatasetError(ValueError):
    """Data can't be had as asked for; the message is one line that says what to do."""


class ImageDataset(NamedTuple):
    """Labelled images in two parts, to train and to test on.

    Images are C-contiguous uint8 arrays of shape (N, 3, h, w) in RGB order, or the
    :class:`~chainer_crossbn.datasets.lazy.LazyImages` of such arrays; labels are int32
    arrays of shape (N,) with values in ``range(n_class)``.
    """

    name: str
    n_class: int
    train_images: numpy.ndarray
    train_labels: numpy.ndarray
    test_images: numpy.ndarray
    test_labels: numpy.ndarray
    #: SHA-256 in hexadecimal, of the arrays or of what lazy images are made from: the
    #: same for the same images and labels.
    checksum: str
    #: Lines that the user should see once.
    notes: tuple = ()


def make(name, n_class, train, test, notes=()):
    """Put two pairs of images and labels together and take their checksum.

    Args:
        name (str): Name of the data set.
        n_class (int): Number of classes.
        train (tuple of numpy.ndarray): Images and labels as :class:`ImageDataset` has
            them.
        test (tuple of numpy.ndarray): Likewise.
        notes (tuple of str): What the user should know.

    Returns:
        ImageDataset: All of it.
    """
    checksum = hashlib.sha256()
    for images, labels in (train, test):
        # The number of images keeps the two parts apart.
        checksum.update(b"%d\n" % len(labels))
        checksum.update(images)
        checksum.update(labels.astype("<i4"))
    return ImageDataset(name, n_class, *train, *test, checksum.hexdigest(), notes)


def take_balanced(labels, size, n_class):
    """Choose images so that all classes are there in equal number.

    The first image of each class comes first, then the second of each, and so on, so
    that the classes differ by one image at most, as long as none runs out, and a
    smaller choice is part of any larger one.

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
        raise DatasetError(
            f"{size} images were asked for; choose from 1 to {len(labels)}"
        )
    by_class = numpy.argsort(labels, kind="stable")
    counts = numpy.bincount(labels, minlength=n_class)
    firsts = numpy.cumsum(counts) - counts
    place_in_class = numpy.empty(len(labels), numpy.int64)
    place_in_class[by_class] = numpy.arange(len(labels)) - numpy.repeat(firsts, counts)
    chosen = numpy.lexsort((labels, place_in_class))[:size]
    return numpy.sort(chosen).astype(numpy.int64, copy=False)
