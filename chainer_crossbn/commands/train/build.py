"""Build what trains, from the arguments of a run."""

from typing import NamedTuple

import chainer
import chainermn
import numpy
from chainer.training import Trainer
from chainer.training.extensions import ExponentialShift, LogReport, observe_lr

from chainer_crossbn import datasets, models
from chainer_crossbn.commands.train import console, normalization_options, options
from chainer_crossbn.datasets.loading import Request
from chainer_crossbn.functions.rank_dropout import RankDropout
from chainer_crossbn.profiling import Profiler, Recorder
from chainer_crossbn.training.extensions import EpochStatistics, GlobalEvaluator
from chainer_crossbn.training.iterators import ShareIterator
from chainer_crossbn.training.optimizers import MomentumSGD
from chainer_crossbn.training.running_statistics import averaged, of_rank_zero
from chainer_crossbn.training.updaters import GlobalUpdater, as_input, prime


class Setup(NamedTuple):
    """What a run has to train with.

    Attributes:
        args (argparse.Namespace): Its arguments.
        data (Dataset): Its images.
        load (Loader): Makes mini-batches of them.
        comm: ChainerMN communicator of all ranks.
        device (chainer.backend.Device): What this rank computes on.
        watchdog (Watchdog): Is told where this rank is.
    """

    args: object
    data: object
    load: object
    comm: object
    device: object
    watchdog: object


def build(setup, path):
    """Build model, optimizer and trainer; all ranks call it.

    Args:
        setup (Setup): What there is to train with.
        path (pathlib.Path): The run's directory.

    Returns:
        tuple: The :class:`chainer.training.Trainer` and the model.
    """
    args, data, load, comm, device, watchdog = setup
    numpy.random.seed(args.seed)
    normalization = normalization_options.create(args, comm)
    dropout = RankDropout(_dropout_seeds(args, comm), device.xp)
    model = models.create(
        args.model,
        data.n_class,
        normalization,
        width=args.width,
        fc_units=args.fc_units,
        dropout=args.dropout,
        initialW=options.INITIALIZERS[args.init](),
        zero_gamma=bool(args.zero_gamma),
        image_size=data.train_images.shape[-1],
        recomputed=bool(args.recompute),
        dropout_function=dropout,
    )
    model.to_device(device)
    normalization.prepare(model, first_batch(setup))
    recorder = Recorder(model, device) if args.profile else None
    optimizer = chainermn.create_multi_node_optimizer(
        MomentumSGD(args.lr, args.momentum, args.weight_decay),
        recorder.timed(comm) if recorder else comm,
    )
    optimizer.setup(model)
    prime(optimizer, comm)
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
    updater = GlobalUpdater(
        iterator,
        optimizer,
        data.train_images,
        data.train_labels,
        comm,
        device,
        load=load,
        dropout=dropout,
        context=recorder,
    )
    updater.note_place = watchdog.at
    trainer = Trainer(updater, (args.epoch, "epoch"), path)
    part = datasets.take_balanced(data.train_labels, args.eval_train, data.n_class)
    sets = {
        "train": (data.train_images[part], data.train_labels[part]),
        "validation": (data.test_images, data.test_labels),
    }
    trainer.extend(EpochStatistics(comm))
    evaluator = GlobalEvaluator(model, sets, comm, device, load)
    evaluator.note_place, evaluator.note_moves = watchdog.at, watchdog.moves
    trainer.extend(evaluator)
    if recorder:
        trainer.extend(Profiler(recorder, evaluator, comm))
    if args.lr_step:
        # After the log, so that an epoch is logged with the rate that it had.
        trainer.extend(
            ExponentialShift("lr", 0.5),
            trigger=(args.lr_step, "epoch"),
            priority=chainer.training.PRIORITY_READER - 1,
        )
    if comm.rank == 0:
        trainer.extend(observe_lr(), trigger=(1, "epoch"))
        trainer.extend(LogReport(trigger=(1, "epoch")))
        console.extend(trainer)
    return trainer, model


def _dropout_seeds(args, comm):
    """Return the seeds of this process's ranks, each of which drops other units."""
    first = comm.rank * args.virtual_ranks
    return [
        int(numpy.random.RandomState([args.seed, rank]).randint(2**31))
        for rank in range(first, first + args.virtual_ranks)
    ]


def first_batch(setup):
    """Return this process's part of a global batch that depends on the seed alone.

    Args:
        setup (Setup): What there is to train with.

    Returns:
        float32 array of shape (n, 3, h, w), on the rank's device.
    """
    args, data, load, comm, device, _ = setup
    order = numpy.random.RandomState(args.seed).permutation(len(data.train_labels))
    size = args.batchsize * args.virtual_ranks
    mine = order[comm.rank * size : (comm.rank + 1) * size]
    (batch,) = load(data.train_images, [Request(mine, (args.seed, 0))])
    return as_input(batch, device)


def compare_tests(model, setup):
    """Test with each reading of the ranks' running statistics, if these differ.

    Args:
        model (chainer.Link): The trained model.
        setup (Setup): What it was trained with.

    Returns:
        dict: From a reading to its ``loss`` and ``accuracy``.
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
    found = {}
    for name, reading in readings.items():
        sets = {"test": (data.test_images, data.test_labels)}
        evaluator = GlobalEvaluator(reading, sets, comm, setup.device, setup.load)
        evaluator.note_moves = setup.watchdog.moves
        seen = evaluator()
        found[name] = {what: seen[f"test/main/{what}"] for what in ("loss", "accuracy")}
    return found
