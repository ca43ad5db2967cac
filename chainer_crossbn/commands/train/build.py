"""Build model, optimizer and trainer from the options of a run."""

from argparse import Namespace
from typing import NamedTuple

import chainer
import chainermn
import numpy
from chainer.training import Trainer
from chainer.training.extensions import LogReport, observe_lr

from chainer_crossbn import datasets, models
from chainer_crossbn.commands.train import console, options
from chainer_crossbn.datasets.loading import Loader, Request
from chainer_crossbn.functions.rank_dropout import RankDropout
from chainer_crossbn.profiling import Profiler, Recorder
from chainer_crossbn.training.extensions import (
    EpochStatistics,
    GlobalEvaluator,
    LearningRate,
    learning_rate,
)
from chainer_crossbn.training.iterators import ShareIterator
from chainer_crossbn.training.optimizers import MomentumSGD
from chainer_crossbn.training.running_statistics import averaged, of_rank_zero
from chainer_crossbn.training.updaters import GlobalUpdater, as_input, prime
from chainer_crossbn.training.watchdog import Watchdog

_INITIALIZERS = {
    "glorot": chainer.initializers.GlorotNormal,
    "he": chainer.initializers.HeNormal,
    "lecun": chainer.initializers.LeCunNormal,
}


class Setup(NamedTuple):
    """What a run trains with.

    Attributes:
        args (argparse.Namespace): Completed options.
        data (ImageDataset): Images.
        load (Loader): Makes mini-batches of them.
        comm: ChainerMN communicator of all processes.
        device (chainer.backend.Device): What this process computes on.
        watchdog (Watchdog): Records the progress of this process.
    """

    args: Namespace
    data: datasets.ImageDataset
    load: Loader
    comm: chainermn.CommunicatorBase
    device: chainer.backend.Device
    watchdog: Watchdog


def build(setup: Setup, path: str) -> tuple[Trainer, chainer.Chain]:
    """Build model, optimizer and trainer; all ranks call it together.

    Args:
        setup (Setup): What the run trains with.
        path (str): The run directory.

    Returns:
        tuple: The :class:`chainer.training.Trainer` and the model.
    """
    args = setup.args
    numpy.random.seed(args.seed)
    dropout = create_dropout(setup)
    model = build_model(setup, dropout)
    recorder = Recorder(model, setup.device) if args.profile else None
    optimizer = _build_optimizer(setup, model, recorder)
    updater = _build_updater(setup, optimizer, dropout, recorder)
    trainer = Trainer(updater, (args.epoch, "epoch"), path)
    _extend(trainer, setup, model, recorder)
    return trainer, model


def build_model(setup: Setup, dropout: RankDropout) -> chainer.Chain:
    """Build the network on the process's device; all ranks call it together."""
    args, data = setup.args, setup.data
    normalization = _create_normalization(args, setup.comm)
    model = models.create(
        args.model,
        data.n_class,
        normalization,
        width=args.width,
        fc_units=args.fc_units,
        dropout=args.dropout,
        initialW=_INITIALIZERS[args.init](),
        zero_gamma=bool(args.zero_gamma),
        image_size=data.train_images.shape[-1],
        recomputed=bool(args.recompute),
        dropout_function=dropout,
    )
    model.to_device(setup.device)
    normalization.prepare(model, first_batch(setup))
    return model


def _create_normalization(args, comm):
    """Create the normalization that models are built with; all ranks call it."""
    settings = {
        name: getattr(args, name) for name in models.normalizations.OPTIONS[args.bn]
    }
    if args.bn_layers is not None:
        layers = options.end_and_count(args.bn_layers)
        settings.update(layers=layers, rest=args.bn_rest)
    return models.normalizations.create(
        args.bn, comm, virtual_ranks=args.virtual_ranks, **settings
    )


def _build_optimizer(setup, model, recorder):
    args, comm = setup.args, setup.comm
    optimizer = chainermn.create_multi_node_optimizer(
        MomentumSGD(args.lr, args.momentum, args.weight_decay),
        recorder.timed(comm) if recorder else comm,
    )
    optimizer.setup(model)
    prime(optimizer, comm)
    return optimizer


def _build_updater(setup, optimizer, dropout, recorder):
    args, data, comm = setup.args, setup.data, setup.comm
    n_train = len(data.train_labels)
    iterator = ShareIterator(
        n_train,
        args.batchsize,
        comm.rank,
        comm.size,
        args.seed,
        virtual_ranks=args.virtual_ranks,
    )
    if iterator.dropped and comm.rank == 0:
        print(
            f"left out: {iterator.dropped} of {n_train} images each epoch, fewer than "
            f"the {comm.size * args.virtual_ranks} ranks",
            flush=True,
        )
    return GlobalUpdater(
        iterator,
        optimizer,
        data.train_images,
        data.train_labels,
        comm,
        setup.device,
        load=setup.load,
        dropout=dropout,
        progress=setup.watchdog,
        context=recorder,
    )


def _extend(trainer, setup, model, recorder):
    """Add evaluation, log, profile, learning rate and console to a trainer."""
    args, comm = setup.args, setup.comm
    trainer.extend(EpochStatistics(comm))
    evaluator = create_evaluator(setup, model)
    trainer.extend(evaluator)
    if recorder:
        trainer.extend(Profiler(recorder, evaluator, comm))
    trainer.extend(LearningRate(_schedule(args)))
    if comm.rank == 0:
        trainer.extend(observe_lr(), trigger=(1, "epoch"))
        trainer.extend(LogReport(trigger=(1, "epoch")))
        console.extend(trainer)


def create_evaluator(setup: Setup, model: chainer.Chain) -> GlobalEvaluator:
    """Return an evaluator of training images (``train``) and test images."""
    args, data = setup.args, setup.data
    part = datasets.take_balanced(data.train_labels, args.eval_train, data.n_class)
    sets = {
        "train": (data.train_images[part], data.train_labels[part]),
        "validation": (data.test_images, data.test_labels),
    }
    return _create_evaluator(setup, model, sets)


def _create_evaluator(setup, model, sets):
    return GlobalEvaluator(
        model,
        sets,
        setup.comm,
        setup.device,
        load=setup.load,
        progress=setup.watchdog,
    )


def _schedule(args):
    if args.lr_schedule == "cosine":
        return learning_rate.cosine(args.lr, args.epoch)
    if args.lr_schedule == "milestones":
        epochs = [int(epoch) for epoch in args.lr_milestones.split(",")]
        return learning_rate.milestones(args.lr, epochs, args.lr_factor)
    return learning_rate.step(args.lr, args.lr_step, args.lr_factor)


def create_dropout(setup: Setup) -> RankDropout:
    """Return the dropout of this process's ranks, with a seed for each rank."""
    args = setup.args
    first = setup.comm.rank * args.virtual_ranks
    seeds = [
        int(numpy.random.RandomState([args.seed, rank]).randint(2**31))
        for rank in range(first, first + args.virtual_ranks)
    ]
    return RankDropout(seeds, setup.device.xp)


def first_batch(setup: Setup):
    """Return this process's part of a global batch that depends on the seed alone.

    Args:
        setup (Setup): What the run trains with.

    Returns:
        float32 array of shape (n, 3, h, w), on the process's device.
    """
    args, data, comm = setup.args, setup.data, setup.comm
    order = numpy.random.RandomState(args.seed).permutation(len(data.train_labels))
    size = args.batchsize * args.virtual_ranks
    part = order[comm.rank * size : (comm.rank + 1) * size]
    (batch,) = setup.load(data.train_images, [Request(part, (args.seed, 0))])
    return as_input(batch, setup.device)


def compare_tests(model: chainer.Chain, setup: Setup) -> dict:
    """Test with each reading of the ranks' running statistics, if these differ.

    Args:
        model (chainer.Chain): The trained model.
        setup (Setup): What it was trained with.

    Returns:
        dict: Name of a reading -> its ``loss`` and ``accuracy``; empty if all ranks
        have the same running statistics.
    """
    data, comm = setup.data, setup.comm
    average = averaged(model, comm)
    if average is model:
        return {}
    readings = {
        "averaged": average,
        "rank0": of_rank_zero(model, comm),
        "within": averaged(model, comm, between=False),
    }
    results = {}
    for name, reading in readings.items():
        sets = {"test": (data.test_images, data.test_labels)}
        values = _create_evaluator(setup, reading, sets)()
        results[name] = {
            quantity: values[f"test/main/{quantity}"]
            for quantity in ("loss", "accuracy")
        }
    return results
