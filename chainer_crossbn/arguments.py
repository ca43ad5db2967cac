"""The command line of ``train_cifar.py``."""

import argparse
import math

import chainer

from chainer_crossbn import datasets, normalizers
from chainer_crossbn.command_line import Parser
from chainer_crossbn.models import MODELS

INITIALIZERS = {
    "he": chainer.initializers.HeNormal,
    "lecun": chainer.initializers.LeCunNormal,
    "glorot": chainer.initializers.GlorotNormal,
}
COMMUNICATORS = ("naive", "flat", "pure_nccl", "non_cuda_aware")

_REFERENCE_LR = 0.01
_REFERENCE_GLOBAL_BATCH = 512


def default_lr(global_batchsize):
    """Return the base learning rate of a global batch size, the same for all networks.

    It is 0.01 at 512 images and goes with the square root (Krizhevsky, "One weird trick
    for parallelizing convolutional neural networks", 2014).
    """
    return _REFERENCE_LR * math.sqrt(global_batchsize / _REFERENCE_GLOBAL_BATCH)


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


def _add(group, *names, **options):
    """Add an argument whose help tells its default, where that is a value."""
    if options.get("default") is not None:
        options["help"] += " (default: %(default)s)"
    group.add_argument(*names, **options)


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
    parser = Parser(
        prog="train_cifar.py",
        description="Train a network on all MPI ranks (mpiexec -n 8 python "
        "train_cifar.py --bn multigpu) and log loss, accuracy and time.",
    )
    count = _number(int, 1)
    positive = _number(float, 0, low_included=False)
    fraction = _number(float, 0, 1)

    model = parser.add_argument_group("network")
    _add(
        model,
        "--bn",
        choices=normalizers.NAMES,
        default="multigpu",
        help="normalization: none (noBN), normal (normalBN, each rank for itself), "
        "multigpu (multigpuBN, over all ranks), chainer (L.BatchNormalization)",
    )
    _add(model, "--model", choices=sorted(MODELS), default="vgg16", help="network")
    _add(model, "--width", type=count, default=64, help="channels of the first stage")
    _add(
        model,
        "--fc-units",
        type=count,
        default=4096,
        help="units of the hidden FC layers",
    )
    _add(
        model,
        "--dropout",
        type=fraction,
        default=0.0,
        help="dropout ratio of the FC layers",
    )
    _add(
        model,
        "--init",
        choices=sorted(INITIALIZERS),
        default="he",
        help="initializer of the weights",
    )

    training = parser.add_argument_group("training")
    _add(
        training,
        "--batchsize",
        "-b",
        type=count,
        default=64,
        help="images per rank and step",
    )
    _add(training, "--epoch", "-e", type=count, default=100, help="epochs to train")
    _add(
        training,
        "--lr",
        type=positive,
        help="base learning rate (default: 0.01 * sqrt(global batch / 512))",
    )
    _add(training, "--momentum", type=fraction, default=0.9, help="momentum of the SGD")
    _add(
        training,
        "--weight-decay",
        type=_number(float, 0),
        default=5e-4,
        help="weight decay, on all parameters",
    )
    _add(
        training,
        "--lr-step",
        type=_number(int, 0),
        default=25,
        help="epochs after which the rate is halved, again and again; 0: never",
    )
    _add(
        training,
        "--seed",
        type=_number(int, 0, 2**32),
        default=0,
        help="seed of weights, order and dropout",
    )

    data = parser.add_argument_group("data")
    _add(data, "--dataset", choices=datasets.NAMES, default="cifar10", help="images")
    _add(
        data,
        "--data",
        metavar="PATH",
        help="CIFAR archive (cifar-10-python.tar.gz), unpacked directory, or a "
        "directory that holds either (default: Chainer's cache, else download)",
    )
    _add(
        data,
        "--train-size",
        type=count,
        metavar="N",
        help="train on N images, balanced",
    )
    _add(
        data, "--test-size", type=count, metavar="N", help="test on N images, balanced"
    )
    _add(
        data,
        "--eval-train",
        type=count,
        metavar="N",
        help="training images for train/main/* (default: as many as test images)",
    )

    machine = parser.add_argument_group("machine")
    _add(
        machine,
        "--communicator",
        choices=COMMUNICATORS,
        help="ChainerMN communicator (default: naive on CPUs, pure_nccl on GPUs)",
    )
    device = machine.add_mutually_exclusive_group()
    device.add_argument("--gpu", action="store_true", help="one GPU per rank")
    device.add_argument("--cpu", action="store_true", help="no GPU")
    _add(
        machine,
        "--threads",
        type=count,
        help="BLAS threads per rank (default: cores of the node / its ranks)",
    )

    output = parser.add_argument_group("output")
    _add(output, "--out", "-o", default="result", help="directory that gathers runs")
    _add(
        output,
        "--name",
        help="directory of this run in --out (default: such as "
        "vgg16-multigpu-b64-r8-s0)",
    )
    return parser.parse_args(argv)
