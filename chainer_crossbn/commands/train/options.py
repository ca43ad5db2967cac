"""The command line of ``train_cifar.py``."""

import argparse
import math

import chainer

from chainer_crossbn.commands.command_line import Parser, add, number
from chainer_crossbn.commands.train import data_options, normalization_options, threads
from chainer_crossbn.errors import UsageError
from chainer_crossbn.models import MODELS, OPTIONS, normalizations, supporting

INITIALIZERS = {
    "he": chainer.initializers.HeNormal,
    "lecun": chainer.initializers.LeCunNormal,
    "glorot": chainer.initializers.GlorotNormal,
}
COMMUNICATORS = ("host", "naive", "flat", "pure_nccl", "staged", "non_cuda_aware")

_REFERENCE_LR = 0.01
_REFERENCE_GLOBAL_BATCH = 512


def default_lr(global_batchsize):
    """Return the base learning rate of a global batch size, the same for all networks.

    It is 0.01 at 512 images and goes with the square root (Krizhevsky, "One weird trick
    for parallelizing convolutional neural networks", 2014).
    """
    return _REFERENCE_LR * math.sqrt(global_batchsize / _REFERENCE_GLOBAL_BATCH)


# What the result of a run depends on, besides the data and the number of ranks.
OF_RESULT = (
    *("bn", "model", "dataset", "seed", "bn_group_size", "bn_layers", "bn_rest"),
    *("paper_allreduces", "paper_backward", "groups", "weight_norm_init"),
    *("width", "fc_units", "dropout", "zero_gamma", "init", "batchsize", "epoch", "lr"),
    *("momentum", "weight_decay", "lr_step", "train_size", "test_size", "eval_train"),
    "image_size",
)


def flag(name):
    """Return the flag of an argument."""
    return "--" + name.replace("_", "-")


def parse(argv=None, given_only=False):
    """Parse a command line.

    Args:
        argv (list of str or None): Arguments; those of the process by default.
        given_only (bool): Whether what is not given is ``None``, and nothing checked
            that has to do with more than one argument.

    Returns:
        argparse.Namespace: With ``name`` and ``lr`` still ``None`` where not given, as
        their defaults depend on the number of ranks, and so the options of
        normalizations, as their defaults depend on the normalization.

    Raises:
        UsageError: If an argument is unknown, of the wrong type or out of range, or
            goes with another normalization, or can't be followed on this machine.
    """
    parser = Parser(
        prog="train_cifar.py",
        description="Train a network on all MPI ranks (mpiexec -n 8 python "
        "train_cifar.py --bn multigpu) and log loss, accuracy and time.",
    )
    count = number(int, 1)
    positive = number(float, 0, low_included=False)
    fraction = number(float, 0, 1)

    model = parser.add_argument_group("network")
    normalization_options.add_to(model)
    add(model, "--model", choices=sorted(MODELS), default="vgg16", help="network")
    add(
        model,
        "--width",
        type=count,
        help="channels of the first convolution, with which all others scale (default: "
        f"{_widths()})",
    )
    add(
        model,
        "--fc-units",
        type=count,
        help="units of the hidden FC layers (alexnet, vgg16; default: 4096)",
    )
    add(
        model,
        "--dropout",
        type=fraction,
        default=0.0,
        help="dropout ratio of the FC layers (alexnet, googlenet, vgg16)",
    )
    add(
        model,
        "--init",
        choices=sorted(INITIALIZERS),
        default="he",
        help="initializer of the weights",
    )
    model.add_argument(
        "--zero-gamma",
        action="store_const",
        const=True,
        help="start the last normalization of each block at a scale of 0 (resnet*)",
    )

    training = parser.add_argument_group("training")
    add(
        training,
        "--batchsize",
        "-b",
        type=count,
        default=64,
        help="images per rank and step",
    )
    add(training, "--epoch", "-e", type=count, default=100, help="epochs to train")
    add(
        training,
        "--lr",
        type=positive,
        help="base learning rate (default: 0.01 * sqrt(global batch / 512))",
    )
    add(training, "--momentum", type=fraction, default=0.9, help="momentum of the SGD")
    add(
        training,
        "--weight-decay",
        type=number(float, 0),
        default=5e-4,
        help="weight decay, on all parameters",
    )
    add(
        training,
        "--lr-step",
        type=number(int, 0),
        default=25,
        help="epochs after which the rate is halved, again and again; 0: never",
    )
    add(
        training,
        "--seed",
        type=number(int, 0, 2**32),
        default=0,
        help="seed of weights, order and dropout",
    )

    training.add_argument(
        "--allow-nan",
        action="store_true",
        help="go on when the loss is no finite number",
    )

    data = parser.add_argument_group("data")
    data_options.add_to(data)

    machine = parser.add_argument_group("machine")
    add(
        machine,
        "--virtual-ranks",
        type=count,
        default=1,
        metavar="V",
        help="ranks per process: P processes train as P x V ranks do, with V times "
        "--batchsize images in one pass, for machines with fewer cores or GPUs than "
        "ranks",
    )
    machine.add_argument(
        "--recompute",
        action="store_const",
        const=True,
        help="keep little of the forward pass, and compute it again in the backward "
        "pass: less memory, the same results",
    )
    add(
        machine,
        "--communicator",
        choices=COMMUNICATORS,
        help="communicator (default: host on CPUs; on GPUs pure_nccl, without NCCL "
        "staged, by which ranks may share a GPU)",
    )
    device = machine.add_mutually_exclusive_group()
    device.add_argument("--gpu", action="store_true", help="one GPU per rank")
    device.add_argument("--cpu", action="store_true", help="no GPU")
    add(
        machine,
        "--threads",
        type=count,
        help="BLAS threads per rank (default: cores of the node / its ranks)",
    )

    output = parser.add_argument_group("output")
    add(output, "--out", "-o", default="result", help="directory that gathers runs")
    add(
        output,
        "--name",
        help="directory of this run in --out (default: such as "
        "vgg16-multigpu-b64-r8-s0)",
    )
    output.add_argument(
        "--profile",
        action="store_true",
        help="write profile.json: where the time of an iteration goes, by layer",
    )
    output.add_argument(
        "--no-model",
        action="store_true",
        help="write the log alone, and no model.npz",
    )
    add(
        output,
        "--snapshot-interval",
        type=number(float, 0),
        default=1.0,
        metavar="EPOCHS",
        help="epochs after which a snapshot is taken, again and again; 0: never",
    )
    output.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="go on from the last snapshot in the run directory PATH, whose arguments "
        "hold where no others are given; auto: in the directory that the run would "
        "have, and if there is none, begin",
    )
    if given_only:
        names = vars(parser.parse_args([]))
        return parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names)))
    args = parser.parse_args(argv)
    _check_model(args)
    normalization_options.check(args)
    data_options.check(args)
    if args.threads is not None and not threads.can_be_limited():
        raise UsageError(
            "--threads needs threadpoolctl (pip install threadpoolctl); or leave it "
            "out, and set OPENBLAS_NUM_THREADS"
        )
    return args


def _check_model(args):
    """Check that the options go with the model."""
    asked = {
        "fc_units": args.fc_units is not None,
        "dropout": args.dropout > 0,
        "zero_gamma": args.zero_gamma,
    }
    for option, is_asked in asked.items():
        names = supporting(option)
        if is_asked and args.model not in names:
            raise UsageError(
                f"{flag(option)} goes with --model {', '.join(names[:-1])} or "
                f"{names[-1]}, not {args.model}"
            )
    if args.zero_gamma and args.bn not in normalizations.OF_LAYERS:
        raise UsageError(f"--zero-gamma: there is no gamma with --bn {args.bn}")


def _widths():
    """Return in words which width the models have by default."""
    models = {}
    for name in MODELS:
        models.setdefault(OPTIONS[name]["width"], []).append(name)
    return "; ".join(f"{width}: {', '.join(models[width])}" for width in sorted(models))


def complete(args, n_processes):
    """Fill in the defaults that depend on other arguments and on the ranks.

    Args:
        args (argparse.Namespace): As :func:`parse` returns it; changed in place.
        n_processes (int): Number of processes.

    Raises:
        UsageError: If the groups of ``--bn-group-size`` do not come out even.
    """
    n_ranks = n_processes * args.virtual_ranks
    args.lr = args.lr or default_lr(args.batchsize * n_ranks)
    for option in ("width", "fc_units"):
        if getattr(args, option) is None:
            setattr(args, option, OPTIONS[args.model].get(option))
    normalization_options.complete(args, n_ranks)
    data_options.complete(args)
    if args.name is None:
        words = normalization_options.words(args)
        words += [
            word.replace("_", "-")
            for word in ("zero_gamma", "recompute")
            if getattr(args, word)
        ]
        ranks = f"r{n_ranks}"
        if args.virtual_ranks > 1:
            ranks += f"-v{args.virtual_ranks}"
        args.name = "-".join(
            [args.model, *words, f"b{args.batchsize}", ranks, f"s{args.seed}"]
        )
