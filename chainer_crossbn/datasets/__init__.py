"""Sets of colour images to train on: CIFAR-10 and CIFAR-100, directories of images such
as ImageNet's, and one made here."""

from chainer_crossbn.datasets import cifar, folder, synthetic
from chainer_crossbn.datasets.images import DatasetError, ImageDataset, take_balanced
from chainer_crossbn.datasets.index import Index
from chainer_crossbn.datasets.lazy import LazyImages

__all__ = [
    "NAMES",
    "OF_FILES",
    "DatasetError",
    "ImageDataset",
    "Index",
    "LazyImages",
    "load",
    "take_balanced",
]

OF_FILES = folder.NAMES
NAMES = (*cifar.NAMES, *OF_FILES, synthetic.NAME)


def load(
    name,
    path=None,
    train_size=None,
    test_size=None,
    seed=0,
    progress=None,
    side=None,
    skip_broken=False,
    threads=1,
    index=None,
):
    """Load a data set, or a class-balanced part of it.

    Args:
        name (str): ``'cifar10'``, ``'cifar100'`` (fine labels), ``'folder'`` (a
            directory for each class), ``'imagenet'`` or ``'synthetic'``.
        path (str, os.PathLike or None): Where CIFAR lies: the official archive, the
            directory that it unpacks to, or a directory that holds either. By default
            Chainer's dataset cache, into which it is downloaded if need be. Of
            ``folder`` and ``imagenet`` the directory that has ``train``.
        train_size (int or None): Number of training images. By default all; of
            ``synthetic`` 10,000.
        test_size (int or None): Number of test images. By default all; of ``synthetic``
            2,000.
        seed (int): What ``synthetic`` is made from.
        progress (callable or None): Called with a line of text now and then while a
            download or the checking of files goes on.
        side (int or None): Height and width of the images, but for CIFAR's. By default
            32 of ``synthetic``, otherwise 224.
        skip_broken (bool): Whether ``folder`` and ``imagenet`` leave out files that
            can't be decoded.
        threads (int): Number of threads in which files are checked.
        index (Index or None): Remembers which files are sound.

    Returns:
        ImageDataset: The images, with a part of those in files chosen by
        :func:`take_balanced`.

    Raises:
        DatasetError: If the data can't be had as asked for. Other data never take
            their place.
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
            *(name, path, train_size, test_size, side or folder.SIDE),
            *(skip_broken, threads, index, progress),
        )
    raise DatasetError(f"unknown data set {name!r}; choose one of {', '.join(NAMES)}")
