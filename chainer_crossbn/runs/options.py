"""The options of ``train_cifar.py``, in one table.

:data:`OPTIONS` determines the parser, what ``--resume`` keeps or compares, the names of
runs, the legends of figures, and which runs are comparable.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Callable, Optional

from chainer_crossbn.runs.values import increasing, layers, number

_COUNT = number(int, 1)
_POSITIVE = number(float, 0, low_included=False)
_FRACTION = number(float, 0, 1)
_LARGEST_SIDE = 1024

_CROSS_GPU = ("multigpu", "paper", "chainermn")
_OF_LAYERS = ("normal", *_CROSS_GPU, "chainer", "layer", "group")
_RESNETS = (
    *("resnet20", "resnet50", "resnet56"),
    *("resnet101", "resnet110", "resnet152"),
)
_FILES = ("folder", "imagenet")


class OnResume(Enum):
    """What ``--resume`` does with the value of an option."""

    COMPARE = "refuse a value other than the run's, because the result depends on it"
    KEEP = "take the run's value unless another is given"
    IGNORE = "use the given value, or the default"


@dataclass(frozen=True)
class Option:
    """An option.

    Attributes:
        name (str): Name in ``args.json``.
        help (str): What it does.
        type (callable or None): Converts its text to a value; ``None`` for a switch.
        default: Value if it is not given. ``None`` where the default depends on other
            options, on the ranks or on the machine; it is filled in later.
        default_text (str): Describes a default that depends on something else.
        choices (tuple or None): Accepted values.
        metavar (str or None): Placeholder of the value in the help text.
        short (str or None): Short flag.
        applies_to (tuple or None): Name of another option, and its values with which
            this option may be given.
        default_there: Value if it is not given and ``applies_to`` holds.
        on_resume (OnResume): What ``--resume`` does with it.
        name_part (str or None): Part of the run's name if the value is not the default.
        legend (str or None): The same in legends of figures. Different values of such
            an option are different networks in figures.
        comparable (bool or None): Whether figures may compare runs that differ in it.
            By default they may if results do not depend on it.
        assumed: Value of runs that were recorded before the option existed.
    """

    name: str
    help: str
    type: Optional[Callable[[str], Any]] = None
    default: Any = None
    default_text: str = ""
    choices: Optional[tuple[Any, ...]] = None
    metavar: Optional[str] = None
    short: Optional[str] = None
    applies_to: Optional[tuple[str, tuple[str, ...]]] = None
    default_there: Any = None
    on_resume: OnResume = OnResume.COMPARE
    name_part: Optional[str] = None
    legend: Optional[str] = None
    comparable: Optional[bool] = None
    assumed: Any = None

    @property
    def flag(self) -> str:
        """The flag, such as ``--bn-layers``."""
        return flag(self.name)

    @property
    def description(self) -> str:
        """The help text, and the values of another option that it applies to."""
        if self.applies_to is None:
            return self.help
        other, supported = self.applies_to
        return f"{self.help}; for {flag(other)} {either(supported)}"

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.type is None

    @property
    def usual(self) -> Any:
        """The value that names and legends leave out."""
        return self.default if self.default_there is None else self.default_there

    @property
    def separates_runs(self) -> bool:
        """Whether figures separate runs that differ in it."""
        if self.comparable is None:
            return self.on_resume is OnResume.COMPARE
        return not self.comparable


_NETWORK = (
    Option(
        "bn",
        "normalization: none (noBN), normal (normalBN: statistics of each rank), "
        "multigpu (multigpuBN: statistics of all ranks), paper (multigpuBN as "
        "described in the paper), "
        "chainermn (ChainerMN's MultiNodeBatchNormalization), chainer "
        "(L.BatchNormalization), layer, group or weight (Layer, Group or Weight "
        "Normalization)",
        type=str,
        default="multigpu",
        choices=(
            *("none", "normal", "multigpu", "paper", "chainermn", "chainer"),
            *("layer", "group", "weight"),
        ),
    ),
    Option(
        "bn_group_size",
        "share statistics within groups of K consecutive ranks",
        type=_COUNT,
        default_text="all ranks",
        metavar="K",
        applies_to=("bn", _CROSS_GPU),
        name_part="groups-of-{}",
        legend="groups of {}",
    ),
    Option(
        "paper_allreduces",
        "number of all-reduces for the paper's mean and mean of squares",
        type=int,
        choices=(1, 2),
        applies_to=("bn", ("paper",)),
        default_there=2,
        name_part="{}-allreduce",
        legend="{} all-reduce",
    ),
    Option(
        "paper_backward",
        "gradient sums: exact averages them over the ranks, local uses each rank's own",
        type=str,
        choices=("exact", "local"),
        applies_to=("bn", ("paper",)),
        default_there="exact",
        name_part="{}-backward",
        legend="{} backward",
    ),
    Option(
        "groups",
        "number of groups of Group Normalization, or the largest smaller number that "
        "divides the channels of a layer",
        type=_COUNT,
        applies_to=("bn", ("group",)),
        default_there=32,
        name_part="{}-groups",
        legend="{} groups",
    ),
    Option(
        "weight_norm_init",
        "initialize Weight Normalization with the norms of the initial weights (norm), "
        "or such that the outputs for a first mini-batch of all ranks have mean 0 and "
        "variance 1 (data)",
        type=str,
        choices=("norm", "data"),
        applies_to=("bn", ("weight",)),
        default_there="norm",
        name_part="{}-init",
        legend="{} init",
    ),
    Option(
        "bn_layers",
        "layers that use --bn: all, front:K (the first K normalizations) or back:K",
        type=layers,
        default_text="all",
        metavar="LAYERS",
        applies_to=("bn", _OF_LAYERS),
        name_part="{}",
        legend="{}",
    ),
    Option(
        "bn_rest",
        "normalization of the other layers with --bn-layers",
        type=str,
        choices=("normal", "none"),
        default_text="normal",
        name_part="rest-{}",
        legend="rest {}",
    ),
    Option(
        "model",
        "network; resnet20, resnet56 and resnet110 are for small images",
        type=str,
        default="vgg16",
        choices=tuple(sorted(("alexnet", "googlenet", *_RESNETS, "vgg16"))),
    ),
    Option(
        "width",
        "channels of the first convolution; all other layers scale with it; 8 or 16 "
        "suits a laptop",
        type=_COUNT,
        default_text="the model's own, 64 for vgg16",
    ),
    Option(
        "fc_units",
        "units of the hidden fully connected layers",
        type=_COUNT,
        applies_to=("model", ("alexnet", "vgg16")),
        default_there=4096,
    ),
    Option(
        "dropout",
        "dropout ratio of the fully connected layers",
        type=_FRACTION,
        default=0.0,
        applies_to=("model", ("alexnet", "googlenet", "vgg16")),
    ),
    Option(
        "init",
        "initializer of the weights: HeNormal, LeCunNormal or GlorotNormal",
        type=str,
        default="he",
        choices=("glorot", "he", "lecun"),
    ),
    Option(
        "zero_gamma",
        "initialize the scale of the last normalization of each residual block to 0",
        applies_to=("model", _RESNETS),
        name_part="zero-gamma",
    ),
)

_TRAINING = (
    Option(
        "batchsize",
        "images per rank and iteration",
        type=_COUNT,
        default=64,
        short="-b",
    ),
    Option("epoch", "epochs to train", type=_COUNT, default=100, short="-e"),
    Option(
        "lr",
        "initial learning rate",
        type=_POSITIVE,
        default_text="0.01 * sqrt(global batch size / 512)",
    ),
    Option("momentum", "momentum of SGD", type=_FRACTION, default=0.9),
    Option(
        "weight_decay",
        "weight decay of all parameters",
        type=number(float, 0),
        default=5e-4,
    ),
    Option(
        "lr_schedule",
        "how the learning rate decreases: step (every --lr-step epochs), milestones "
        "(after each of --lr-milestones) or cosine (to 0 after the last epoch)",
        type=str,
        default="step",
        choices=("step", "milestones", "cosine"),
        assumed="step",
    ),
    Option(
        "lr_step",
        "multiply the learning rate by --lr-factor every EPOCHS epochs; 0 disables",
        type=number(int, 0),
        default=25,
        metavar="EPOCHS",
        applies_to=("lr_schedule", ("step",)),
    ),
    Option(
        "lr_milestones",
        "multiply the learning rate by --lr-factor after each of these epochs, such as "
        "60,120,160",
        type=increasing,
        metavar="EPOCHS",
        applies_to=("lr_schedule", ("milestones",)),
    ),
    Option(
        "lr_factor",
        "factor of the learning rate",
        type=number(float, 0, 1, low_included=False),
        default=0.5,
        assumed=0.5,
        applies_to=("lr_schedule", ("step", "milestones")),
    ),
    Option(
        "seed",
        "seed of the initial weights, the order of images, crops and dropout",
        type=number(int, 0, 2**32),
        default=0,
        comparable=True,
    ),
    Option(
        "allow_nan",
        "continue when the loss is not finite",
        default=False,
        on_resume=OnResume.KEEP,
    ),
)

_DATA = (
    Option(
        "dataset",
        "data set; synthetic needs no files",
        type=str,
        default="cifar10",
        choices=("cifar10", "cifar100", *_FILES, "synthetic"),
    ),
    Option(
        "data",
        "CIFAR archive (such as cifar-10-python.tar.gz), unpacked directory, .npz file "
        "or a directory that contains one of these; for folder and imagenet, the "
        "directory that contains train/CLASS/* and val/CLASS/*, or the lists train.txt "
        "and val.txt",
        type=str,
        default_text="Chainer's cache, else CIFAR is downloaded",
        metavar="PATH",
        on_resume=OnResume.KEEP,
    ),
    Option(
        "train_size",
        "train on N images, the same number from each class",
        type=_COUNT,
        default_text="all",
        metavar="N",
    ),
    Option(
        "test_size",
        "test on N images, the same number from each class",
        type=_COUNT,
        default_text="all",
        metavar="N",
    ),
    Option(
        "eval_train",
        "number of training images used to compute train/main/*",
        type=_COUNT,
        default_text="as many as test images",
        metavar="N",
    ),
    Option(
        "image_size",
        "height and width of the images",
        type=number(int, 1, _LARGEST_SIDE + 1),
        default_text="224, 32 for synthetic",
        metavar="PIXELS",
        applies_to=("dataset", (*_FILES, "synthetic")),
    ),
    Option(
        "augment",
        "pad training images by 4 zeros on each side, crop them at random, and flip "
        "half of them; each epoch draws other crops",
        applies_to=("dataset", ("cifar10", "cifar100", "synthetic")),
        name_part="augment",
    ),
    Option(
        "skip_broken",
        "leave out image files that can't be decoded",
        default=False,
        applies_to=("dataset", _FILES),
        on_resume=OnResume.KEEP,
    ),
    Option(
        "decode_threads",
        "threads per rank that decode images",
        type=_COUNT,
        default_text="cores of the node / its ranks",
        metavar="N",
        applies_to=("dataset", (*_FILES, "synthetic")),
        on_resume=OnResume.KEEP,
    ),
)

_MACHINE = (
    Option(
        "virtual_ranks",
        "ranks per process: P processes train like P x V ranks, with V x --batchsize "
        "images in one pass, for machines with fewer cores or GPUs than ranks. Times "
        "are not those of P x V ranks",
        type=_COUNT,
        default=1,
        metavar="V",
        on_resume=OnResume.KEEP,
    ),
    Option(
        "recompute",
        "recompute parts of the forward pass in the backward pass: less memory, the "
        "same results",
        on_resume=OnResume.KEEP,
        name_part="recompute",
        comparable=False,
    ),
    Option(
        "dtype",
        "precision of parameters and activations; mixed16: float16 with float32 "
        "parameters. Statistics are always summed in float64",
        type=str,
        default="float32",
        default_text="the environment variable CHAINER_DTYPE, else float32",
        choices=("float16", "mixed16", "float32", "float64"),
        assumed="float32",
        name_part="{}",
    ),
    Option(
        "communicator",
        "ChainerMN communicator: host (this package's, in host memory) or naive; with "
        "GPUs also pure_nccl, flat, non_cuda_aware, or staged (this package's, through "
        "host memory; ranks may share a GPU)",
        type=str,
        default_text="host; with GPUs pure_nccl, without NCCL staged",
        choices=("host", "naive", "flat", "pure_nccl", "staged", "non_cuda_aware"),
        on_resume=OnResume.IGNORE,
        comparable=False,
    ),
    Option(
        "gpu",
        "use one GPU per rank",
        default=False,
        default_text="if there are enough GPUs",
        on_resume=OnResume.IGNORE,
    ),
    Option("cpu", "use no GPU", default=False, on_resume=OnResume.IGNORE),
    Option(
        "threads",
        "BLAS threads per rank",
        type=_COUNT,
        default_text="cores of the node / its ranks",
        on_resume=OnResume.KEEP,
    ),
)

_OUTPUT = (
    Option(
        "out",
        "parent directory of the run directories",
        type=str,
        default="result",
        short="-o",
        on_resume=OnResume.IGNORE,
    ),
    Option(
        "name",
        "name of the run directory in --out",
        type=str,
        default_text="such as vgg16-multigpu-b64-r8-s0",
        on_resume=OnResume.IGNORE,
    ),
    Option(
        "profile",
        "write profile.json: the time of an iteration by phase and layer",
        default=False,
        on_resume=OnResume.KEEP,
    ),
    Option(
        "no_model",
        "do not write model.npz",
        default=False,
        on_resume=OnResume.KEEP,
    ),
    Option(
        "snapshot_interval",
        "take a snapshot every EPOCHS epochs; fractions are allowed; 0 disables",
        type=number(float, 0),
        default=1.0,
        metavar="EPOCHS",
        on_resume=OnResume.KEEP,
    ),
    Option(
        "resume",
        "continue the run in the directory PATH from its last snapshot; options that "
        "are not given are those of the run. auto: continue the run of the same name "
        "if it exists, otherwise start it",
        type=str,
        metavar="auto|PATH",
        on_resume=OnResume.IGNORE,
    ),
    Option(
        "evaluate",
        "do not train; test the model.npz of the run in the directory PATH. Options "
        "that are not given are those of the run",
        type=str,
        metavar="PATH",
        on_resume=OnResume.IGNORE,
    ),
)

# Heading in the help text -> options.
GROUPS = {
    "network": _NETWORK,
    "training": _TRAINING,
    "data": _DATA,
    "machine": _MACHINE,
    "output": _OUTPUT,
}

# Name -> option.
OPTIONS = {option.name: option for group in GROUPS.values() for option in group}


def flag(name: str) -> str:
    """Return the flag of an option, such as ``--bn-layers`` for ``bn_layers``."""
    return "--" + name.replace("_", "-")


def either(values: Iterable[str]) -> str:
    """Return alternatives as text, such as ``"a, b or c"``."""
    *most, last = values
    return f"{', '.join(most)} or {last}" if most else last


def run_name(arguments: dict[str, Any], n_ranks: int) -> str:
    """Return the default name of a run.

    Args:
        arguments (dict): Name of each option -> its value, defaults filled in.
        n_ranks (int): Number of ranks, virtual ranks included.

    Returns:
        str: Such as ``"vgg16-multigpu-front4-rest-none-b64-r8-s0"``.
    """
    parts = [arguments["model"], arguments["bn"]]
    for option in OPTIONS.values():
        value = arguments[option.name]
        if option.name_part is not None and value not in (None, option.usual):
            parts.append(option.name_part.format(str(value).replace(":", "")))
    parts += [f"b{arguments['batchsize']}", f"r{n_ranks}"]
    if arguments["virtual_ranks"] > 1:
        parts.append(f"v{arguments['virtual_ranks']}")
    return "-".join([*parts, f"s{arguments['seed']}"])
