"""The experiments and the scales they are run at, as data.

The claims are numbered as in the table that the report opens with.
"""

from dataclasses import dataclass, replace
from typing import Optional


@dataclass(frozen=True)
class Setting:
    """What a run trains; the seed and the scale come with the run.

    Attributes:
        bn (str): Value of ``--bn``.
        batch (int): Mini-batch size per rank.
        options (tuple): Pairs of a further flag, less its dashes, and its value; they
            go before what the scale says.
        rate (float): Learning rate, as a multiple of the one that the rule gives.
        timed (bool): Whether it is run for its times: each rank is a process then.
    """

    bn: str
    batch: int
    options: tuple = ()
    rate: float = 1
    timed: bool = False


@dataclass(frozen=True)
class Experiment:
    """Runs that are compared.

    Attributes:
        name (str): Value of ``--only``.
        title (str): What is compared, and which part of the paper that is.
        claims (tuple of int): The paper's claims that it is for.
        settings (tuple of Setting): What is run.
        repeated (bool): Whether each seed has its run; else the first seed alone has.
    """

    name: str
    title: str
    claims: tuple
    settings: tuple
    repeated: bool = False


@dataclass(frozen=True)
class Beyond:
    """How large the experiments are that the paper leaves for the future.

    Attributes:
        widths (tuple): Pairs of a value of ``--model`` and the channels of its first
            convolution.
        batches (tuple of int): Mini-batch sizes per rank of these networks.
        epochs (int): Their epochs.
        lr_step (int): Epochs after which their learning rate is halved.
        layers (tuple of int): How many of ResNet-110's 109 normalizations the front
            has.
        train_sizes (tuple of int): Numbers of training images, for VGG16.
        large (tuple): Options of the runs on large images, which have data of their
            own.
        large_batches (tuple of int): Their mini-batch sizes per rank.
    """

    widths: tuple
    batches: tuple
    epochs: int
    lr_step: int
    layers: tuple
    train_sizes: tuple
    large: tuple
    large_batches: tuple


@dataclass(frozen=True)
class Map:
    """How large the map of learning rates is.

    Attributes:
        train_size (int or None): Training images; ``None`` are all.
        test_size (int or None): Test images; ``None`` are all.
        epochs (int): Epochs of every run.
        lr_step (int): Epochs after which the learning rate is halved.
        rates (tuple of float): Learning rates.
        inits (tuple of str): Values of ``--init``.
        cells (tuple): Pairs of a value of ``--bn`` and a mini-batch size per rank.
    """

    train_size: int
    test_size: int
    epochs: int
    lr_step: int
    rates: tuple
    inits: tuple
    cells: tuple


@dataclass(frozen=True)
class Scale:
    """How large everything is; all runs of a scale share it.

    Attributes:
        name (str): Value of ``--scale``.
        rules_from (str): What chooses the initialization and the learning rates:
            ``"search"``, one rule; or ``"map"``, two rules.
        dataset (str): Value of ``--dataset``.
        ranks (int): MPI ranks.
        width (int): Channels of the first stage.
        fc_units (int): Units of the hidden fully connected layers.
        train_size (int or None): Training images; ``None`` are all.
        test_size (int or None): Test images; ``None`` are all.
        epochs (int): Epochs of every run that is compared with another.
        lr_step (int): Epochs after which the learning rate is halved.
        timed_epochs (int): Epochs of the runs whose times are compared.
        seeds (int): How many seeds repeated experiments have.
        sweep (tuple of int): Batch sizes from the paper's smallest to its largest.
        layers (tuple of int): How many of the 13 normalizations the front has.
        rates (tuple of float): Learning rates tried, as multiples of the rule's; may
            be empty.
        search (tuple): Triples of batch size, networks and epochs of the search; may
            be empty.
        scaling (tuple): Numbers of ranks, and batch sizes, whose iterations are timed;
            may be empty.
        map (Map or None): How large the map of learning rates is.
        beyond (Beyond or None): How large what the paper leaves for the future is.
    """

    name: str
    rules_from: str
    dataset: str
    ranks: int
    width: int
    fc_units: int
    train_size: int
    test_size: int
    epochs: int
    lr_step: int
    timed_epochs: int
    seeds: int
    sweep: tuple
    layers: tuple
    rates: tuple = ()
    search: tuple = ()
    scaling: tuple = ()
    map: Optional[Map] = None
    beyond: Optional[Beyond] = None


_CIFAR = 50_000  # training images
_NETWORKS = ("none", "normal", "multigpu")
_NORMALIZED = ("normal", "multigpu")
_CELLS = (
    ("none", 64),
    *((bn, batch) for batch in (64, 2, 4) for bn in _NORMALIZED),
)
_MAP = Map(
    train_size=10_000,
    test_size=None,
    epochs=12,
    lr_step=6,
    rates=tuple(0.0005 * 2**k for k in range(8)),
    inits=("lecun", "he"),
    cells=_CELLS,
)

SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            name="full",
            rules_from="search",
            dataset="cifar10",
            ranks=8,
            width=64,
            fc_units=4096,
            train_size=None,
            test_size=None,
            epochs=100,
            lr_step=25,
            timed_epochs=10,
            seeds=3,
            sweep=(2, 4, 8, 16, 32, 64),
            rates=(0.25, 0.5, 1, 2, 4, 8),
            layers=(4, 9),
            search=((64, _NETWORKS, 12), (2, _NORMALIZED, 4)),
            scaling=((1, 2, 4, 8), (2, 8, 32, 64)),
            map=replace(_MAP, train_size=None, epochs=50, lr_step=20),
            beyond=Beyond(
                widths=(("resnet110", 16), ("googlenet", 64)),
                batches=(2, 4, 64),
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
        ),
        Scale(
            name="laptop",
            rules_from="search",
            dataset="cifar10",
            ranks=8,
            width=16,
            fc_units=128,
            train_size=5000,
            test_size=2000,
            epochs=12,
            lr_step=6,
            timed_epochs=4,
            seeds=3,
            sweep=(2, 4, 8, 16, 32, 64),
            rates=(0.25, 0.5, 1, 2, 4, 8),
            layers=(6,),
            search=((64, _NETWORKS, 12), (2, _NORMALIZED, 2)),
            scaling=((1, 2, 4, 8), (2, 8, 32, 64)),
            map=_MAP,
            beyond=Beyond(
                widths=(("resnet110", 8), ("googlenet", 16)),
                batches=(2, 4, 64),
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
                large_batches=(2,),
            ),
        ),
        Scale(
            name="desktop",
            rules_from="map",
            dataset="cifar10",
            ranks=8,
            width=16,
            fc_units=128,
            train_size=None,
            test_size=None,
            epochs=20,
            lr_step=7,
            timed_epochs=2,
            seeds=3,
            sweep=(2, 4, 8, 16, 32, 64),
            layers=(6,),
        ),
        Scale(
            name="smoke",
            rules_from="search",
            dataset="synthetic",
            ranks=2,
            width=2,
            fc_units=8,
            train_size=128,
            test_size=20,
            epochs=2,
            lr_step=1,
            timed_epochs=2,
            seeds=1,
            sweep=(2, 4, 64),
            rates=(1, 2),
            layers=(6,),
            search=((64, _NETWORKS, 1), (2, _NORMALIZED, 1)),
            scaling=((2,), (2, 4)),
            map=Map(
                train_size=128,
                test_size=20,
                epochs=1,
                lr_step=1,
                rates=(0.001, 0.002),
                inits=("lecun", "he"),
                cells=_CELLS,
            ),
            beyond=Beyond(
                widths=(("resnet110", 2), ("googlenet", 4)),
                batches=(2,),
                epochs=1,
                lr_step=1,
                layers=(54,),
                train_sizes=(64, 128),
                large=(("image-size", 64),),
                large_batches=(2,),
            ),
        ),
    )
}


def experiments(scale):
    """Return the experiments at a scale, in the order in which they are run.

    Args:
        scale (Scale): One of :data:`SCALES`.

    Returns:
        tuple of Experiment: Those by which the claims are judged.
    """
    return (
        Experiment(
            "fig3",
            "Fig. 3: three networks at batch size 64",
            (1, 2),
            tuple(Setting(bn, 64) for bn in _NETWORKS),
            repeated=True,
        ),
        Experiment(
            "fig4",
            "Fig. 4: multigpuBN at 2 and normalBN at 64 (and at 2)",
            (4, 5),
            (Setting("normal", 64), Setting("multigpu", 2), Setting("normal", 2)),
            repeated=True,
        ),
        Experiment(
            "fig5",
            "Fig. 5: batch size 4, and normalBN at 64",
            (6,),
            (Setting("normal", 4), Setting("multigpu", 4), Setting("normal", 64)),
            repeated=True,
        ),
        Experiment(
            "table2",
            "Table 2: time at batch size 64, with multigpuBN as written",
            (3,),
            tuple(Setting(bn, 64, timed=True) for bn in (*_NETWORKS, "paper")),
            repeated=True,
        ),
        Experiment(
            "sweep",
            "Batch sizes from 2 to 64",
            (4, 6, 8),
            tuple(Setting(bn, batch) for batch in scale.sweep for bn in _NORMALIZED),
        ),
        *_rates(scale),
        Experiment(
            "profile",
            "Where the time of an iteration goes at batch size 2",
            (7,),
            tuple(Setting(bn, 2, timed=True) for bn in _NORMALIZED),
        ),
    )


def optional(scale):
    """Return further experiments, likewise, which are run when they are asked for."""
    return (
        Experiment(
            "variants",
            "Table 2 with the variants of multigpuBN as written, and ChainerMN's BN",
            (3,),
            _variants(64),
        ),
        *_rates_at_2(scale),
        Experiment(
            "layers",
            "Batch normalization in only the front or only the back layers",
            (),
            tuple(
                Setting("multigpu", 4, (("bn-layers", layers), ("bn-rest", rest)))
                for count in scale.layers
                for layers in (f"front:{count}", f"back:{count}")
                for rest in ("normal", "none")
            ),
        ),
        Experiment(
            "comparators",
            "Layer, group and weight normalization at 2 and 64",
            (),
            tuple(
                Setting(bn, batch)
                for batch in (64, 2)
                for bn in ("layer", "group", "weight")
            ),
        ),
    )


def _rates(scale):
    """Return the experiments with learning rates at batch size 64: one, or none."""
    settings = [Setting(bn, 64, rate=rate) for rate in scale.rates for bn in _NETWORKS]
    title = "Learning rates, as multiples of the standard one, at batch size 64"
    return [Experiment("rates", title, (9,), tuple(settings))] if settings else []


def _rates_at_2(scale):
    """Return the experiments with learning rates at batch size 2: one, or none."""
    settings = [
        Setting(bn, 2, rate=rate)
        for rate in scale.rates
        if rate >= 1
        for bn in _NORMALIZED
    ]
    title = "Learning rates, as multiples of the standard one, at batch size 2"
    return [Experiment("rates2", title, (4,), tuple(settings))] if settings else []


def every(scale):
    """Return all experiments at a scale, of which :func:`experiments` come first."""
    return experiments(scale) + optional(scale) + beyond(scale)


# What --only takes in the place of several experiments.
GROUPS = {"deep": ("resnet110", "googlenet", "resnet110-layers")}


def beyond(scale):
    """Return the experiments that the paper leaves for the future, likewise.

    They are run when they are asked for. Not every scale has them.
    """
    of = scale.beyond
    if of is None:
        return ()
    networks = {
        model: (
            ("model", model),
            ("width", width),
            ("epoch", of.epochs),
            ("lr-step", of.lr_step),
        )
        for model, width in of.widths
    }
    titles = {
        "resnet110": "ResNet-110, of over 100 layers",
        "googlenet": "GoogLeNet",
    }
    deep = [
        Experiment(
            model,
            titles[model],
            (),
            tuple(
                Setting(bn, batch, options) for batch in of.batches for bn in _NETWORKS
            ),
        )
        for model, options in networks.items()
    ]
    return (
        *deep,
        Experiment(
            "resnet110-layers",
            "ResNet-110 with statistics of all ranks in the front or the back alone",
            (),
            tuple(
                Setting("multigpu", batch, (*networks["resnet110"], ("bn-layers", at)))
                for batch in of.batches[:1]
                for count in of.layers
                for at in (f"front:{count}", f"back:{count}")
            ),
        ),
        Experiment(
            "sizes",
            "Numbers of training images, at batch sizes 2 and 64",
            (),
            tuple(
                Setting(bn, batch, _of_size(size, scale))
                for size in of.train_sizes
                for batch in (2, 64)
                for bn in _NETWORKS
            ),
        ),
        Experiment(
            "large",
            f"Images of {dict(of.large)['image-size']} pixels a side",
            (),
            tuple(
                Setting(bn, batch, of.large)
                for batch in of.large_batches
                for bn in _NETWORKS
            ),
        ),
    )


def _of_size(size, scale):
    """Return the options of a number of training images: none for the usual one."""
    usual = scale.train_size or _CIFAR
    return () if size == usual else (("train-size", size),)


def _variants(batch):
    variants = [
        Setting(
            "paper",
            batch,
            (("paper-allreduces", allreduces), ("paper-backward", backward)),
            timed=True,
        )
        for allreduces, backward in ((1, "exact"), (1, "local"), (2, "local"))
    ]
    return (*variants, Setting("chainermn", batch, timed=True))
