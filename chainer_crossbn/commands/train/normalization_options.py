"""The part of the command line of ``train_cifar.py`` that chooses a normalization."""

import argparse
import re

from chainer_crossbn.commands.command_line import add, number
from chainer_crossbn.errors import UsageError
from chainer_crossbn.models import MODELS, normalizations


def _layers(text):
    """Convert ``all`` to ``None``; leave ``front:K`` and ``back:K``, K at least 1."""
    if text == "all":
        return None
    if not re.fullmatch("(front|back):[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not all, front:K or back:K with K at least 1"
        )
    return text


def add_to(group):
    """Add the arguments.

    Args:
        group (argparse._ArgumentGroup): Of the parser.
    """
    add(
        group,
        "--bn",
        choices=normalizations.NAMES,
        default="multigpu",
        help="normalization: none (noBN), normal (normalBN, each rank for itself), "
        "multigpu (multigpuBN, over all ranks), paper (multigpuBN as the paper writes "
        "it), chainermn (ChainerMN's MultiNodeBatchNormalization), chainer "
        "(L.BatchNormalization), layer, group or weight normalization",
    )
    add(
        group,
        "--bn-group-size",
        type=number(int, 1),
        metavar="K",
        help="each K consecutive ranks share statistics (multigpu, paper, chainermn; "
        "default: all)",
    )
    add(
        group,
        "--bn-layers",
        type=_layers,
        metavar="WHICH",
        help="normalizations that are of the --bn kind: all, front:K or back:K "
        "(default: all)",
    )
    add(
        group,
        "--bn-rest",
        choices=("normal", "none"),
        help="what the other normalizations are (default: normal)",
    )
    add(
        group,
        "--paper-allreduces",
        type=int,
        choices=(1, 2),
        help="all-reduces of the paper's statistics (default: 2)",
    )
    add(
        group,
        "--paper-backward",
        choices=("exact", "local"),
        help="whether the paper's gradient sums are averaged over the ranks "
        "(default: exact)",
    )
    add(
        group,
        "--groups",
        type=number(int, 1),
        help="groups of group normalization, or the most below that divide a layer's "
        "channels (default: 32)",
    )
    add(
        group,
        "--weight-norm-init",
        choices=("norm", "data"),
        help="weight normalization starts from the lengths of the initial weights, or "
        "by a mini-batch of all ranks (default: norm)",
    )


def check(args):
    """Check that the options go with the normalization and with each other.

    Args:
        args (argparse.Namespace): As parsed.

    Raises:
        UsageError: If one does not.
    """
    takers = {"bn_layers": normalizations.OF_LAYERS}
    for name in normalizations.NAMES:
        for option in normalizations.OPTIONS[name]:
            takers[option] = (*takers.get(option, ()), name)
    for option, names in takers.items():
        if getattr(args, option) is not None and args.bn not in names:
            raise UsageError(
                f"--{option.replace('_', '-')} goes with --bn {_either(names)}, not "
                f"{args.bn}"
            )
    if args.virtual_ranks > 1 and args.bn in normalizations.WITHOUT_VIRTUAL_RANKS:
        raise UsageError(
            f"--virtual-ranks does not go with --bn {args.bn}, whose link knows no "
            "virtual ranks; start as many processes as ranks"
        )
    if args.bn_layers is None:
        if args.bn_rest is not None:
            raise UsageError("--bn-rest goes with --bn-layers front:K or back:K")
        return
    if args.bn == (args.bn_rest or "normal"):
        raise UsageError(
            "--bn-layers with --bn normal leaves no other layers; choose --bn-rest none"
        )
    total = MODELS[args.model].n_normalizations
    if _end_and_count(args.bn_layers)[1] > total:
        raise UsageError(
            f"--bn-layers {args.bn_layers} is more than the {total} normalizations of "
            f"{args.model}"
        )


def complete(args, n_ranks):
    """Fill in the defaults of the normalization.

    Args:
        args (argparse.Namespace): Checked arguments, changed in place.
        n_ranks (int): Number of ranks.

    Raises:
        UsageError: If the groups of ``--bn-group-size`` do not come out even.
    """
    if args.bn_group_size == n_ranks:
        args.bn_group_size = None
    size = args.bn_group_size
    if size is not None and n_ranks % size:
        fit = [str(k) for k in range(1, n_ranks + 1) if n_ranks % k == 0]
        raise UsageError(
            f"--bn-group-size {size} does not divide the {n_ranks} ranks; choose "
            f"{_either(fit)}"
        )
    virtual = args.virtual_ranks
    if size is not None and virtual % size and size % virtual:
        raise UsageError(
            f"--bn-group-size {size} must divide --virtual-ranks {virtual} or be a "
            "multiple of it, so that processes have the same groups"
        )
    for option, default in normalizations.OPTIONS[args.bn].items():
        if getattr(args, option) is None:
            setattr(args, option, default)
    if args.bn_layers is None:
        return
    if _end_and_count(args.bn_layers)[1] == MODELS[args.model].n_normalizations:
        args.bn_layers = args.bn_rest = None
    else:
        args.bn_rest = args.bn_rest or "normal"


def words(args):
    """Return what a run's name tells of its normalization, defaults left out.

    Args:
        args (argparse.Namespace): Completed arguments.

    Returns:
        list of str: Such as ``["multigpu", "front4", "rest", "none"]``.
    """
    told = {
        "bn_group_size": f"groups-of-{args.bn_group_size}",
        "paper_allreduces": f"{args.paper_allreduces}-allreduce",
        "paper_backward": f"{args.paper_backward}-backward",
        "groups": f"{args.groups}-groups",
        "weight_norm_init": f"{args.weight_norm_init}-init",
    }
    words = [args.bn]
    for option, default in normalizations.OPTIONS[args.bn].items():
        if getattr(args, option) != default:
            words.append(told[option])
    if args.bn_layers is not None:
        words += [args.bn_layers.replace(":", ""), "rest", args.bn_rest]
    return words


def create(args, comm):
    """Create the normalization object; all ranks call it together.

    Args:
        args (argparse.Namespace): Completed arguments.
        comm: ChainerMN communicator.

    Returns:
        chainer_crossbn.models.normalizations.Normalization: What models build with.
    """
    options = {
        option: getattr(args, option) for option in normalizations.OPTIONS[args.bn]
    }
    if args.bn_layers is not None:
        options.update(layers=_end_and_count(args.bn_layers), rest=args.bn_rest)
    return normalizations.create(
        args.bn, comm, virtual_ranks=args.virtual_ranks, **options
    )


def _end_and_count(layers):
    end, count = layers.split(":")
    return end, int(count)


def _either(names):
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
