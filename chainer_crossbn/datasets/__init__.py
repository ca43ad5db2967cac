"""Data sets of colour images: CIFAR, directories of image files, or synthetic."""

from __future__ import annotations

import os
from typing import Callable

from chainer_crossbn.datasets import cifar, folder, synthetic
from chainer_crossbn.datasets.images import DatasetError, ImageDataset, take_balanced
from chainer_crossbn.datasets.lazy import LazyImages

__all__ = [
    "NAMES",
    "FILE_BASED",
    "DatasetError",
    "ImageDataset",
    "LazyImages",
    "load",
    "take_balanced",
]

#: Names of the data sets whose images are in files.
FILE_BASED = folder.NAMES
NAMES = (*cifar.NAMES, *FILE_BASED, synthetic.NAME)


def load(
    name: str,
    path: str | os.PathLike | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
    side: int | None = None,
    skip_broken: bool = False,
    threads: int = 1,
) -> ImageDataset:
    """Load a data set, or a class-balanced subset of it.

    Args:
        name (str): ``'cifar10'``, ``'cifar100'`` (fine labels), ``'folder'``,
            ``'imagenet'`` or ``'synthetic'``.
        path (str, os.PathLike or None): For CIFAR an archive (tar or zip), the
            directory that it unpacks to (Python or binary version), a directory that
            holds either, or an npz file with ``x_train``, ``y_train``, ``x_test`` and
            ``y_test``; the default is
            Chainer's dataset cache, into which the archive is downloaded unless it is
            there. For ``folder`` and ``imagenet`` the directory that has class
            directories or lists, see :func:`.folder.load`.
        train_size (int or None): Number of training images. The default is all, and
            10,000 for ``synthetic``.
        test_size (int or None): Number of test images. The default is all, and 2,000
            for ``synthetic``.
        seed (int): Seed of ``synthetic``.
        progress (callable or None): Called with lines on the progress of a download or
            of the check of files.
        side (int or None): Height and width of the images, except those of CIFAR. The
            default is 32 for ``synthetic``, otherwise 224.
        skip_broken (bool): Whether ``folder`` and ``imagenet`` leave out files that
            can't be decoded.
        threads (int): Number of threads that check files.

    Returns:
        ImageDataset: The images. Subsets are chosen by :func:`take_balanced`.

    Raises:
        DatasetError: If the data can't be loaded. No other data take their place.
    """
    if name == synthetic.NAME:
        if path is not None:
            raise DatasetError(
                "--dataset synthetic reads no files; --data is for the others, leave "
                "it out"
            )
        return synthetic.load(train_size, test_size, seed, side or synthetic.SIDE)
    if name in cifar.NAMES:
        return cifar.load(name, path, train_size, test_size, progress)
    if name in folder.NAMES:
        return folder.load(
            name,
            path,
            train_size=train_size,
            test_size=test_size,
            side=side or folder.SIDE,
            skip_broken=skip_broken,
            threads=threads,
            progress=progress,
        )
    raise DatasetError(f"unknown data set {name!r}; choose one of {', '.join(NAMES)}")
