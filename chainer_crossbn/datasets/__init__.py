"""Sets of 32x32 colour images to train on: CIFAR-10, CIFAR-100, and one made here."""

from chainer_crossbn.datasets import cifar, synthetic
from chainer_crossbn.datasets.images import DatasetError, ImageDataset, take_balanced

__all__ = ["NAMES", "DatasetError", "ImageDataset", "load", "take_balanced"]

NAMES = (*cifar.NAMES, synthetic.NAME)


def load(name, path=None, train_size=None, test_size=None, seed=0, progress=None):
    """Load a data set, or a class-balanced part of it.

    Args:
        name (str): ``'cifar10'``, ``'cifar100'`` (fine labels) or ``'synthetic'``.
        path (str, os.PathLike or None): Where CIFAR lies: the official archive, the
            directory that it unpacks to, or a directory that holds either. By default
            Chainer's dataset cache, into which it is downloaded if need be.
        train_size (int or None): Number of training images. By default all; of
            ``synthetic`` 10,000.
        test_size (int or None): Number of test images. By default all; of ``synthetic``
            2,000.
        seed (int): What ``synthetic`` is made from.
        progress (callable or None): Called with a line of text now and then while a
            download goes on.

    Returns:
        ImageDataset: The images, with a part of CIFAR chosen by :func:`take_balanced`.

    Raises:
        DatasetError: If the data can't be had as asked for. Other data never take
            their place.
    """
    if name == synthetic.NAME:
        if path is not None:
            raise DatasetError(
                "--data is for CIFAR; --dataset synthetic reads no files, leave it out"
            )
        return synthetic.load(train_size, test_size, seed)
    if name in cifar.NAMES:
        return cifar.load(name, path, train_size, test_size, progress)
    raise DatasetError(f"unknown data set {name!r}; choose one of {', '.join(NAMES)}")
