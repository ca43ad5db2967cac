"""The command line of ``train_cifar.py``."""

import argparse
import math

from chainer_crossbn import normalizers
from chainer_crossbn.models import MODELS

INITIALIZERS = ("he", "lecun", "glorot")
DATASETS = ("cifar10", "cifar100", "synthetic")
COMMUNICATORS = ("naive", "flat", "pure_nccl", "non_cuda_aware")

_REFERENCE_LR = 0.01
_REFERENCE_GLOBAL_BATCH = 512


class UsageError(Exception):
    """What the user asked for can't be done; the message is one line that says why."""


def default_lr(global_batchsize):
    """Return the base learning rate of a global batch size, the same for all networks.

    It is 0.01 at 512 images and goes with the square root (Krizhevsky, "One weird trick
    for parallelizing convolutional neural networks", 2014).
    """
    return _REFERENCE_LR * math.sqrt(global_batchsize / _REFERENCE_GLOBAL_BATCH)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message} (see --help)")


def _number(kind, low, high=math.inf, low_included=True):
    limit = "at least" if low_included else "above"
    expected = f"{limit} {low}" + ("" if high == math.inf else f" and below {high}")

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low < value < high or (low_included and value == low)):
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {name} {expected}")
        return value

    return convert


def parse(argv=None):
    """Parse a command line.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        argparse.Namespace: With ``name`` and ``lr`` still ``None`` where not given, as
        their defaults depend on the number of ranks.

    Raises:
        UsageError: If an argument is unknown, of the wrong type or out of range.
    """
    parser = _Parser(
        prog="train_cifar.py",
        description="Train a network on all MPI ranks (mpiexec -n 8 python "
        "train_cifar.py --bn multigpu) and log loss, accuracy and time.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    count = _number(int, 1)
    positive = _number(float, 0, low_included=False)
    fraction = _number(float, 0, 1)

    model = parser.add_argument_group("network")
    model.add_argument(
        "--bn",
        choices=normalizers.NAMES,
        default="multigpu",
        help="normalization: none (noBN), normal (normalBN, each rank for itself), "
        "multigpu (multigpuBN, over all ranks), chainer (L.BatchNormalization)",
    )
    model.add_argument(
        "--model", choices=sorted(MODELS), default="vgg16", help="network"
    )
    model.add_argument(
        "--width", type=count, default=64, help="channels of the first stage"
    )
    model.add_argument(
        "--fc-units", type=count, default=4096, help="units of the hidden FC layers"
    )
    model.add_argument(
        "--dropout", type=fraction, default=0.0, help="dropout ratio of the FC layers"
    )
    model.add_argument(
        "--init", choices=INITIALIZERS, default="he", help="initializer of the weights"
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--batchsize", "-b", type=count, default=64, help="images per rank and step"
    )
    training.add_argument(
        "--epoch", "-e", type=count, default=100, help="epochs to train"
    )
    training.add_argument(
        "--lr",
        type=positive,
        help="base learning rate (default: 0.01 * sqrt(global batch / 512))",
    )
    training.add_argument(
        "--momentum", type=fraction, default=0.9, help="momentum of the SGD"
    )
    training.add_argument(
        "--weight-decay",
        type=_number(float, 0),
        default=5e-4,
        help="weight decay, on all parameters",
    )
    training.add_argument(
        "--lr-step",
        type=_number(int, 0),
        default=25,
        help="epochs after which the rate is halved, again and again; 0: never",
    )
    training.add_argument(
        "--seed",
        type=_number(int, 0, 2**32),
        default=0,
        help="seed of weights, order and dropout",
    )

    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=DATASETS, default="cifar10", help="images")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="CIFAR archive (cifar-10-python.tar.gz), unpacked directory, or a "
        "directory that holds either (default: Chainer's cache, else download)",
    )
    data.add_argument(
        "--train-size", type=count, metavar="N", help="train on N images, balanced"
    )
    data.add_argument(
        "--test-size", type=count, metavar="N", help="test on N images, balanced"
    )
    data.add_argument(
        "--eval-train",
        type=count,
        metavar="N",
        help="training images for train/main/* (default: as many as test images)",
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--communicator",
        choices=COMMUNICATORS,
        help="ChainerMN communicator (default: naive on CPUs, pure_nccl on GPUs)",
    )
    device = machine.add_mutually_exclusive_group()
    device.add_argument("--gpu", action="store_true", help="one GPU per rank")
    device.add_argument("--cpu", action="store_true", help="no GPU")
    machine.add_argument(
        "--threads",
        type=count,
        help="BLAS threads per rank (default: cores of the node / its ranks)",
    )

    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", "-o", default="result", help="directory that gathers runs"
    )
    output.add_argument(
        "--name",
        help="directory of this run in --out (default: such as "
        "vgg16-multigpu-b64-r8-s0)",
    )
    return parser.parse_args(argv)
