"""The arguments of ``train_cifar.py`` that have to do with the images."""

from chainer_crossbn import datasets
from chainer_crossbn.commands.command_line import add, number
from chainer_crossbn.datasets import folder, synthetic
from chainer_crossbn.errors import UsageError

_SIDE_LIMIT = 1024


def add_to(group):
    """Add the arguments to a group of an argument parser."""
    count = number(int, 1)
    add(group, "--dataset", choices=datasets.NAMES, default="cifar10", help="images")
    add(
        group,
        "--data",
        metavar="PATH",
        help="CIFAR archive (cifar-10-python.tar.gz), unpacked directory, or a "
        "directory that holds either (default: Chainer's cache, else download); of "
        "folder and imagenet the directory that has train/CLASS/* and val/CLASS/*, or "
        "the lists train.txt and val.txt",
    )
    add(
        group,
        "--train-size",
        type=count,
        metavar="N",
        help="train on N images, balanced",
    )
    add(
        group, "--test-size", type=count, metavar="N", help="test on N images, balanced"
    )
    add(
        group,
        "--eval-train",
        type=count,
        metavar="N",
        help="training images for train/main/* (default: as many as test images)",
    )
    add(
        group,
        "--image-size",
        type=number(int, 1, _SIDE_LIMIT + 1),
        metavar="PIXELS",
        help="height and width of the images, but for CIFAR (default: 224 of folder "
        "and imagenet, 32 of synthetic)",
    )
    group.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out files of folder or imagenet that can't be decoded",
    )
    add(
        group,
        "--decode-threads",
        type=count,
        metavar="N",
        help="threads per rank that make images (default: cores of the node / its "
        "ranks)",
    )


def check(args):
    """Check that no argument is given that has no effect on these images.

    Args:
        args (argparse.Namespace): As parsed.

    Raises:
        UsageError: If one is.
    """
    if args.image_size is not None and args.dataset.startswith("cifar"):
        raise UsageError(
            f"--image-size: the images of --dataset {args.dataset} have 32 x 32 "
            "pixels; leave it out, or choose another --dataset"
        )
    if args.skip_broken and args.dataset not in datasets.OF_FILES:
        raise UsageError(
            f"--skip-broken is for --dataset {' and '.join(datasets.OF_FILES)}, not "
            f"{args.dataset}; leave it out"
        )
    if args.decode_threads is not None and not _are_lazy(args):
        raise UsageError(
            f"--decode-threads: the images of --dataset {args.dataset} are in memory; "
            "leave it out"
        )


def complete(args):
    """Fill in the side of the images; None where it is 32 of old."""
    if args.dataset in datasets.OF_FILES:
        args.image_size = args.image_size or folder.SIDE
    elif args.image_size == synthetic.SIDE:
        args.image_size = None


def complete_threads(args, cores):
    """Fill in the number of threads that make images.

    Args:
        args (argparse.Namespace): Completed otherwise.
        cores (int): Those of a rank.
    """
    if _are_lazy(args):
        args.decode_threads = args.decode_threads or cores


def _are_lazy(args):
    return args.dataset in datasets.OF_FILES or (
        args.dataset == synthetic.NAME and args.image_size not in (None, synthetic.SIDE)
    )
