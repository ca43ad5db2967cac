"""The experiments, and the scales that they are run at, as data.

The claims are numbered as in the table that opens the report.
"""

from dataclasses import dataclass, replace
from typing import Optional, Union

Options = tuple[tuple[str, Union[str, int, float]], ...]


@dataclass(frozen=True)
class Setting:
    """What a run trains; the seed and the scale come with the run.

    Attributes:
        bn (str): Value of ``--bn``.
        batch (int): Mini-batch size per rank.
        options (tuple): Pairs of a further flag, without its dashes, and its value;
            they override those of the scale.
        rate (float): Learning rate, as a multiple of the one that the rule gives.
        timed (bool): Whether its time is measured; then each rank is a process.
    """

    bn: str
    batch: int
    options: Options = ()
    rate: float = 1
    timed: bool = False


@dataclass(frozen=True)
class Experiment:
    """Runs that are compared.

    Attributes:
        name (str): Value of ``--only``.
        title (str): What is compared, and which part of the paper that is.
        settings (tuple of Setting): What is run.
        repeated (bool): Whether it is run with every seed, or with the first alone.
    """

    name: str
    title: str
    settings: tuple[Setting, ...]
    repeated: bool = False


@dataclass(frozen=True)
class Beyond:
    """Size of the experiments that the paper leaves for the future.

    Attributes:
        widths (tuple): Pairs of a value of ``--model`` and the channels of its first
            convolution.
        epochs (int): Epochs of the networks.
        lr_step (int): Epochs after which their learning rate is halved.
        layers (tuple of int): How many of the 109 normalizations of ResNet-110 are its
            front.
        train_sizes (tuple of int): Numbers of training images, for VGG16.
        large (tuple): Options of the runs on large images, which have their own data.
        batches (tuple of int): Mini-batch sizes per rank of the networks.
        large_batches (tuple of int): Mini-batch sizes per rank of large images.
    """

    widths: tuple[tuple[str, int], ...]
    epochs: int
    lr_step: int
    layers: tuple[int, ...]
    train_sizes: tuple[int, ...]
    large: Options
    batches: tuple[int, ...] = (2, 4, 64)
    large_batches: tuple[int, ...] = (2,)


@dataclass(frozen=True)
class Map:
    """Size of the map of learning rates.

    Attributes:
        train_size (int or None): Training images; ``None`` are all.
        test_size (int or None): Test images; ``None`` are all.
        epochs (int): Epochs of every run.
        lr_step (int): Epochs after which the learning rate is halved.
        rates (tuple of float): Learning rates.
        inits (tuple of str): Values of ``--init``.
        cells (tuple): Pairs of a value of ``--bn`` and a mini-batch size per rank.
    """

    train_size: Optional[int] = 10_000
    test_size: Optional[int] = None
    epochs: int = 12
    lr_step: int = 6
    rates: tuple[float, ...] = tuple(0.0005 * 2**k for k in range(8))
    inits: tuple[str, ...] = ("lecun", "he")
    cells: tuple[tuple[str, int], ...] = (
        ("none", 64),
        *((bn, batch) for batch in (64, 2, 4) for bn in ("normal", "multigpu")),
    )


@dataclass(frozen=True)
class Scale:
    """Size of everything; all runs of a scale share it.

    Attributes:
        name (str): Value of ``--scale``.
        width (int): Channels of the first stage.
        fc_units (int): Units of the hidden fully connected layers.
        train_size (int or None): Training images; ``None`` are all.
        test_size (int or None): Test images; ``None`` are all.
        epochs (int): Epochs of every run that is compared with another.
        lr_step (int): Epochs after which the learning rate is halved.
        timed_epochs (int): Epochs of the runs whose times are compared.
        layers (tuple of int): How many of the 13 normalizations of VGG16 are its front.
        dataset (str): Value of ``--dataset``.
        ranks (int): Number of ranks.
        seeds (int): Number of seeds of repeated experiments.
        sweep (tuple of int): Batch sizes from the paper's smallest to its largest.
        rates (tuple of float): Learning rates to try, as multiples of the rule's.
        search (tuple): Triples of batch size, networks and epochs of the search for
            the one rule of all runs. If empty, the map of the laptop scale chooses
            two rules instead.
        scaling (tuple): Numbers of ranks, and batch sizes, whose iterations are timed;
            may be empty.
        map (Map or None): Size of the map of learning rates.
        beyond (Beyond or None): Size of what the paper leaves for the future.
    """

    name: str
    width: int
    fc_units: int
    train_size: Optional[int]
    test_size: Optional[int]
    epochs: int
    lr_step: int
    timed_epochs: int
    layers: tuple[int, ...]
    dataset: str = "cifar10"
    ranks: int = 8
    seeds: int = 3
    sweep: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    rates: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8)
    search: tuple[tuple[int, tuple[str, ...], int], ...] = ()
    scaling: tuple[tuple[int, ...], ...] = ((1, 2, 4, 8), (2, 8, 32, 64))
    map: Optional[Map] = None
    beyond: Optional[Beyond] = None


_CIFAR_IMAGES = 50_000  # for training
NETWORKS = ("none", "normal", "multigpu")
NORMALIZED = ("normal", "multigpu")

# The paper's own size.
_FULL = Scale(
    name="full",
    width=64,
    fc_units=4096,
    train_size=None,
    test_size=None,
    epochs=100,
    lr_step=25,
    timed_epochs=10,
    layers=(4, 9),
    search=((64, NETWORKS, 12), (2, NORMALIZED, 4)),
    map=Map(train_size=None, epochs=50, lr_step=20),
    beyond=Beyond(
        widths=(("resnet110", 16), ("googlenet", 64)),
        epochs=100,
        lr_step=25,
        layers=(36, 72),
        train_sizes=(2_500, 5_000, 10_000, 25_000, 50_000),
        large=(
            ("dataset", "imagenet"),
            ("image-size", 256),
            ("epoch", 30),
            ("lr-step", 8),
        ),
        large_batches=(2, 8),
    ),
)
# A tenth of the images, and a narrower network.
_LAPTOP = Scale(
    name="laptop",
    width=16,
    fc_units=128,
    train_size=5000,
    test_size=2000,
    epochs=12,
    lr_step=6,
    timed_epochs=4,
    layers=(6,),
    search=((64, NETWORKS, 12), (2, NORMALIZED, 2)),
    map=Map(),
    beyond=Beyond(
        widths=(("resnet110", 8), ("googlenet", 16)),
        epochs=6,
        lr_step=3,
        layers=(54,),
        train_sizes=(2_500, 5_000, 10_000, 20_000),
        large=(
            ("dataset", "folder"),
            ("image-size", 256),
            ("width", 8),
            ("epoch", 2),
            ("lr-step", 1),
            ("train-size", 800),
            ("test-size", 200),
        ),
    ),
)
# All images, and what doesn't depend on their number left to the laptop scale.
_DESKTOP = replace(
    _LAPTOP,
    name="desktop",
    train_size=None,
    test_size=None,
    epochs=20,
    lr_step=7,
    timed_epochs=2,
    rates=(),
    search=(),
    scaling=(),
    map=None,
    beyond=None,
)
# Whether everything works, in two minutes.
_SMOKE = Scale(
    name="smoke",
    width=2,
    fc_units=8,
    train_size=128,
    test_size=20,
    epochs=2,
    lr_step=1,
    timed_epochs=2,
    layers=(6,),
    dataset="synthetic",
    ranks=2,
    seeds=1,
    sweep=(2, 4, 64),
    rates=(1, 2),
    search=((64, NETWORKS, 1), (2, NORMALIZED, 1)),
    scaling=((2,), (2, 4)),
    map=Map(train_size=128, test_size=20, epochs=1, lr_step=1, rates=(0.001, 0.002)),
    beyond=Beyond(
        widths=(("resnet110", 2), ("googlenet", 4)),
        epochs=1,
        lr_step=1,
        layers=(54,),
        train_sizes=(64, 128),
        large=(("image-size", 64),),
        batches=(2,),
    ),
)
SCALES = {scale.name: scale for scale in (_FULL, _LAPTOP, _DESKTOP, _SMOKE)}

# What --only takes in the place of several experiments.
GROUPS = {"deep": ("resnet110", "googlenet", "resnet110-layers")}


def every(scale: Scale) -> tuple[Experiment, ...]:
    """Return all experiments at a scale, of which :func:`experiments` come first."""
    return experiments(scale) + optional(scale) + beyond(scale)


def experiments(scale: Scale) -> tuple[Experiment, ...]:
    """Return the experiments by which the claims are judged, in the order of running.

    Args:
        scale (Scale): One of :data:`SCALES`.
    """
    return (
        Experiment(
            name="fig3",
            title="Fig. 3: three networks at batch size 64",
            settings=_grid(NETWORKS, [64]),
            repeated=True,
        ),
        Experiment(
            name="fig4",
            title="Fig. 4: multigpuBN at 2 and normalBN at 64 (and at 2)",
            settings=(
                Setting("normal", 64),
                Setting("multigpu", 2),
                Setting("normal", 2),
            ),
            repeated=True,
        ),
        Experiment(
            name="fig5",
            title="Fig. 5: batch size 4, and normalBN at 64",
            settings=(
                Setting("normal", 4),
                Setting("multigpu", 4),
                Setting("normal", 64),
            ),
            repeated=True,
        ),
        Experiment(
            name="table2",
            title="Table 2: time at batch size 64, with multigpuBN as written",
            settings=_grid((*NETWORKS, "paper"), [64], timed=True),
            repeated=True,
        ),
        Experiment(
            name="sweep",
            title="Batch sizes from 2 to 64",
            settings=_grid(NORMALIZED, scale.sweep),
        ),
        *_learning_rates("rates", 64, NETWORKS, scale.rates),
        Experiment(
            name="profile",
            title="Where the time of an iteration goes at batch size 2",
            settings=_grid(NORMALIZED, [2], timed=True),
        ),
    )


def optional(scale: Scale) -> tuple[Experiment, ...]:
    """Return further experiments at a scale, which run on request only."""
    higher = [rate for rate in scale.rates if rate >= 1]
    variants = ((1, "exact"), (1, "local"), (2, "local"))
    return (
        Experiment(
            name="variants",
            title="Table 2 with the variants of multigpuBN as written, and ChainerMN's "
            "BN",
            settings=(
                *(
                    Setting(
                        bn="paper",
                        batch=64,
                        options=(("paper-allreduces", n), ("paper-backward", backward)),
                        timed=True,
                    )
                    for n, backward in variants
                ),
                Setting("chainermn", 64, timed=True),
            ),
        ),
        *_learning_rates("rates2", 2, NORMALIZED, higher),
        Experiment(
            name="layers",
            title="Batch normalization in only the front or only the back layers",
            settings=tuple(
                Setting("multigpu", 4, (("bn-layers", layers), ("bn-rest", rest)))
                for count in scale.layers
                for layers in (f"front:{count}", f"back:{count}")
                for rest in ("normal", "none")
            ),
        ),
        Experiment(
            name="comparators",
            title="Layer, group and weight normalization at 2 and 64",
            settings=_grid(("layer", "group", "weight"), [64, 2]),
        ),
    )


def beyond(scale: Scale) -> tuple[Experiment, ...]:
    """Return the experiments that the paper leaves for the future.

    They run on request only, and not every scale has them.
    """
    size = scale.beyond
    if size is None:
        return ()
    schedule = (("epoch", size.epochs), ("lr-step", size.lr_step))
    networks = {
        model: (("model", model), ("width", width), *schedule)
        for model, width in size.widths
    }
    return (
        Experiment(
            name="resnet110",
            title="ResNet-110, of over 100 layers",
            settings=_grid(NETWORKS, size.batches, options=networks["resnet110"]),
        ),
        Experiment(
            name="googlenet",
            title="GoogLeNet",
            settings=_grid(NETWORKS, size.batches, options=networks["googlenet"]),
        ),
        Experiment(
            name="resnet110-layers",
            title="ResNet-110 with statistics of all ranks in the front or the back "
            "alone",
            settings=tuple(
                Setting(
                    bn="multigpu",
                    batch=size.batches[0],
                    options=(*networks["resnet110"], ("bn-layers", layers)),
                )
                for count in size.layers
                for layers in (f"front:{count}", f"back:{count}")
            ),
        ),
        Experiment(
            name="sizes",
            title="Numbers of training images, at batch sizes 2 and 64",
            settings=tuple(
                setting
                for train_size in size.train_sizes
                for setting in _grid(
                    NETWORKS, [2, 64], options=_train_size(train_size, scale)
                )
            ),
        ),
        Experiment(
            name="large",
            title=f"Images with {dict(size.large)['image-size']} pixels per side",
            settings=_grid(NETWORKS, size.large_batches, options=size.large),
        ),
    )


def _grid(networks, batches, **others):
    """Return the settings of some networks at some batch sizes."""
    return tuple(Setting(bn, batch, **others) for batch in batches for bn in networks)


def _learning_rates(name, batch, networks, rates):
    """Return the experiment of learning rates at a batch size, if there are any."""
    if not rates:
        return ()
    title = f"Learning rates, as multiples of the standard one, at batch size {batch}"
    settings = [Setting(bn, batch, rate=rate) for rate in rates for bn in networks]
    return (Experiment(name=name, title=title, settings=tuple(settings)),)


def _train_size(size, scale):
    """Return the options of a number of training images: none for the usual one."""
    usual = scale.train_size or _CIFAR_IMAGES
    return () if size == usual else (("train-size", size),)
