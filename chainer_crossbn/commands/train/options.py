"""Parse, check and complete the command line of ``train_cifar.py``.

The options themselves are in :mod:`chainer_crossbn.runs.options`.
"""

from argparse import Namespace
from typing import Optional

import chainer
import numpy

from chainer_crossbn import datasets, models
from chainer_crossbn.commands.command_line import Parser
from chainer_crossbn.commands.train import threads
from chainer_crossbn.datasets import folder, synthetic
from chainer_crossbn.errors import UsageError
from chainer_crossbn.models import normalizations
from chainer_crossbn.runs.learning_rate import default_rate
from chainer_crossbn.runs.options import GROUPS, OPTIONS, either, flag, run_name


def parse(argv: Optional[list[str]] = None) -> Namespace:
    """Parse a command line and check it, as far as that needs no other information.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        argparse.Namespace: Options whose default depends on the ranks, the machine or
        other options are ``None`` where not given; see :func:`complete`.

    Raises:
        UsageError: If an argument is unknown, has the wrong type, is out of range or
            contradicts another.
    """
    args = _parser().parse_args(argv)
    _check_combinations(args)
    _check_layers(args)
    if args.threads is not None and not threads.can_be_limited():
        raise UsageError(
            "--threads needs threadpoolctl (pip install threadpoolctl); otherwise "
            "omit it and set OPENBLAS_NUM_THREADS"
        )
    return args


def parse_given(argv: Optional[list[str]] = None) -> Namespace:
    """Parse a command line without checking combinations or filling in any default.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        argparse.Namespace: Options that are not given are ``None``.

    Raises:
        UsageError: If an argument is unknown, has the wrong type or is out of range.
    """
    return _parser().parse_args(argv, Namespace(**dict.fromkeys(OPTIONS)))


def _parser():
    parser = Parser(
        prog="train_cifar.py",
        description="Train a network on all MPI ranks and log loss, accuracy and time.",
        epilog="Example: mpiexec -n 8 python train_cifar.py --bn multigpu",
    )
    for heading, options in GROUPS.items():
        group = parser.add_argument_group(heading)
        for option in options:
            _add(group, option)
    # As Chainer has read it when it was imported.
    parser.set_defaults(dtype=_dtype_name(chainer.get_dtype()))
    return parser


def _dtype_name(dtype):
    return "mixed16" if dtype is chainer.mixed16 else numpy.dtype(dtype).name


def chainer_dtype(name: str):
    """Return what Chainer's configuration takes for a value of ``--dtype``."""
    return chainer.mixed16 if name == "mixed16" else numpy.dtype(name)


def _add(group, option):
    names = [option.flag] if option.short is None else [option.flag, option.short]
    settings = {"default": option.default, "help": option.description}
    if option.default_text:
        settings["help"] += f" (default: {option.default_text})"
    elif option.default_there is not None:
        settings["help"] += f" (default: {option.default_there})"
    elif option.default is not None and not option.is_switch:
        settings["help"] += " (default: %(default)s)"
    if option.is_switch:
        settings.update(action="store_const", const=True)
    else:
        settings.update(
            type=option.type, choices=option.choices, metavar=option.metavar
        )
    group.add_argument(*names, **settings)


def _check_combinations(args):
    """Check that no option is given that has no effect with the others."""
    for option in OPTIONS.values():
        value = getattr(args, option.name)
        if option.applies_to is None or value is None or value == option.default:
            continue
        other, supported = option.applies_to
        if getattr(args, other) not in supported:
            raise UsageError(
                f"{option.flag} applies to {flag(other)} {either(supported)}, not "
                f"{getattr(args, other)}; omit it"
            )
    if args.lr_schedule == "milestones" and args.lr_milestones is None:
        raise UsageError("--lr-schedule milestones needs --lr-milestones")
    if args.gpu and args.cpu:
        raise UsageError("--gpu and --cpu contradict each other; give one of them")
    if args.virtual_ranks > 1 and args.bn in normalizations.WITHOUT_VIRTUAL_RANKS:
        raise UsageError(
            f"--virtual-ranks does not support --bn {args.bn}, which has one rank per "
            "process; start as many processes as ranks"
        )
    if args.zero_gamma and args.bn not in normalizations.OF_LAYERS:
        raise UsageError(f"--zero-gamma: --bn {args.bn} has no gamma")
    if args.decode_threads is not None and not _decodes(args):
        raise UsageError(
            f"--decode-threads: the images of --dataset {args.dataset} are in memory; "
            "omit it"
        )


def _check_layers(args):
    if args.bn_layers is None:
        if args.bn_rest is not None:
            raise UsageError("--bn-rest needs --bn-layers front:K or back:K")
        return
    if args.bn == (args.bn_rest or "normal"):
        raise UsageError(
            "--bn-layers with --bn normal leaves no other layers; choose --bn-rest none"
        )
    total = models.MODELS[args.model].n_normalizations
    if end_and_count(args.bn_layers)[1] > total:
        raise UsageError(
            f"--bn-layers {args.bn_layers} is more than the {total} normalizations of "
            f"{args.model}"
        )


def complete(args: Namespace, n_processes: int) -> None:
    """Fill in the defaults that depend on other options and on the number of ranks.

    Args:
        args (argparse.Namespace): As :func:`parse` returns it; changed in place.
        n_processes (int): Number of processes.

    Raises:
        UsageError: If ``--bn-group-size`` does not divide the ranks evenly.
    """
    n_ranks = n_processes * args.virtual_ranks
    args.lr = args.lr or default_rate(args.batchsize * n_ranks)
    for option in OPTIONS.values():
        if option.applies_to is None or getattr(args, option.name) is not None:
            continue
        other, supported = option.applies_to
        if getattr(args, other) in supported:
            setattr(args, option.name, option.default_there)
    if args.width is None:
        args.width = models.OPTIONS[args.model]["width"]
    _complete_groups(args, n_ranks)
    _complete_layers(args)
    if args.dataset in datasets.FILE_BASED:
        args.image_size = args.image_size or folder.SIDE
    elif args.image_size == synthetic.SIDE:
        args.image_size = None
    if args.name is None:
        args.name = run_name(vars(args), n_ranks)


def _complete_groups(args, n_ranks):
    if args.bn_group_size == n_ranks:
        args.bn_group_size = None
    size, virtual = args.bn_group_size, args.virtual_ranks
    if size is None:
        return
    if n_ranks % size:
        divisors = [str(k) for k in range(1, n_ranks + 1) if n_ranks % k == 0]
        raise UsageError(
            f"--bn-group-size {size} does not divide the {n_ranks} ranks; choose "
            f"{either(divisors)}"
        )
    if virtual % size and size % virtual:
        raise UsageError(
            f"--bn-group-size {size} must divide --virtual-ranks {virtual} or be a "
            "multiple of it, so that all processes have the same groups"
        )


def _complete_layers(args):
    if args.bn_layers is None:
        return
    total = models.MODELS[args.model].n_normalizations
    if end_and_count(args.bn_layers)[1] == total:
        args.bn_layers = args.bn_rest = None
    else:
        args.bn_rest = args.bn_rest or "normal"


def complete_threads(args: Namespace, cores_per_rank: int) -> None:
    """Fill in the numbers of threads.

    Args:
        args (argparse.Namespace): As :func:`complete` leaves it; changed in place.
        cores_per_rank (int): Cores of the node per rank.
    """
    args.threads = args.threads or cores_per_rank
    if _decodes(args):
        args.decode_threads = args.decode_threads or cores_per_rank


def end_and_count(bn_layers: str) -> tuple[str, int]:
    """Return ``("front", K)`` or ``("back", K)`` for a value of ``--bn-layers``."""
    end, count = bn_layers.split(":")
    return end, int(count)


def _decodes(args):
    """Return whether images are made while the network trains."""
    return args.dataset in datasets.FILE_BASED or (
        args.dataset == synthetic.NAME and args.image_size not in (None, synthetic.SIDE)
    )
