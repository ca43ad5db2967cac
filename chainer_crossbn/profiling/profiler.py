"""A Trainer extension that writes where the time of training goes."""

import json
import time

import numpy
from chainer.training import extension
from chainermn.links import MultiNodeBatchNormalization

from chainer_crossbn import collectives
from chainer_crossbn.profiling import breakdown, clock, timeline
from chainer_crossbn.profiling.recorder import Recorder, TimedCommunicator
from chainer_crossbn.runs import run_directory

# Of this many iterations at the start of an epoch, but the first few, the one of median
# time becomes the time line.
_CANDIDATES = slice(4, 20)


class Profiler(extension.Extension):
    """Writes ``profile.json`` into the directory of a run at the end of each epoch.

    It holds, in microseconds and as means over the ranks: for each epoch, what an
    iteration takes by component (``breakdown.COMPONENTS``; also by rank) and by layer
    (``breakdown.OF_LAYERS``); for the last epoch, every iteration by component; and one
    iteration as a time line of all ranks (``timeline``). Waiting for the slowest rank
    is told from the collective itself by when the ranks came to it, in a clock that
    they share (``clock``).

    Args:
        model (chainer.Link): Calls its normalizations ``norm``.
        updater (GlobalUpdater): Makes the steps, which are noted from now on.
        evaluator (GlobalEvaluator): Is timed.
        comm: ChainerMN communicator of all ranks, with ``mpi_comm``.
        device: Chainer device. GPUs are waited for after each function.
    """

    trigger = 1, "iteration"
    priority = -200  # after all others

    def __init__(self, model, updater, evaluator, comm, device):
        self._mpi_comm = comm.mpi_comm
        self._evaluator = evaluator
        self._recorder = updater.context = Recorder(model, _synchronizer(device))
        optimizer = updater.get_optimizer("main")
        timed = TimedCommunicator(
            optimizer.communicator,
            "multi_node_mean_grad",
            self._recorder.note_all_reduce,
        )
        # It passes attributes that are set on to the optimizer that it wraps.
        object.__setattr__(optimizer, "communicator", timed)
        self._bn_mpi_comm = self._observe(model)
        self._epochs = []

    def _observe(self, model):
        """Have the normalizations' collectives noted; return the ranks that make them.

        The normalizations of a model that communicate share one communicator.
        """
        found = None
        for link in model.links():
            comm = getattr(link, "comm", None)
            if comm is None or comm.size == 1:
                continue
            found = comm.mpi_comm
            note = self._recorder.note_collective
            if isinstance(link, MultiNodeBatchNormalization):
                link.comm = TimedCommunicator(comm, "_multi_node_mean", note)
            else:
                collectives.observe(comm, note)
        return found

    def serialize(self, serializer):
        # Rank 0 alone has any.
        epochs = serializer("epochs", json.dumps(self._epochs))
        self._epochs = json.loads(str(epochs))

    def initialize(self, trainer):
        self._mark, self._evaluated = time.perf_counter(), self._evaluator.seconds
        self._reading = clock.read(self._mpi_comm)
        self._noted = []

    def __call__(self, trainer):
        mark, evaluated = time.perf_counter(), self._evaluator.seconds
        step = self._recorder.take_step(trainer.updater.phases)
        self._noted.append((step, mark - self._mark, evaluated - self._evaluated))
        self._mark, self._evaluated = mark, evaluated
        if trainer.updater.is_new_epoch:
            self._finish_epoch(trainer)

    def _finish_epoch(self, trainer):
        before, self._reading = self._reading, clock.read(self._mpi_comm)
        iterations = self._analyse(
            lambda times: clock.to_rank_zero(times, before, self._reading)
        )
        self._noted = []
        n = len(iterations)
        candidates = range(n)[_CANDIDATES] or range(n)
        chosen = self._mpi_comm.bcast(
            sorted(candidates, key=lambda i: iterations[i].wall)[len(candidates) // 2]
        )
        ranks = self._mpi_comm.gather(
            (
                numpy.array([breakdown.components(i) for i in iterations]),
                breakdown.by_layer(iterations),
                self._reading.uncertainty,
                timeline.of_rank(iterations[chosen]),
            )
        )
        if self._mpi_comm.rank == 0:
            run_directory.write_profile(trainer.out, self._describe(ranks, chosen))

    def _analyse(self, shared):
        """Return the epoch's iterations, in the clock that the ranks share."""
        steps = [step.told_by(shared) for step, _, _ in self._noted]
        bn = numpy.concatenate([step.collectives for step in steps])
        wait = transfer = numpy.zeros(len(bn))
        if self._bn_mpi_comm is not None:
            wait, transfer = breakdown.split_collectives(self._bn_mpi_comm, bn)
        ends = numpy.cumsum([len(step.parts) for step in steps])[:-1]
        all_reduces = breakdown.split_collectives(
            self._mpi_comm, numpy.array([step.all_reduce for step in steps])
        )
        return [
            breakdown.Iteration(step, *times, *parts)
            for step, (_, *times), *parts in zip(
                steps,
                self._noted,
                numpy.split(wait, ends),
                numpy.split(transfer, ends),
                *all_reduces,
            )
        ]

    def _describe(self, ranks, chosen):
        """Return the content of the file, from what the ranks have sent."""
        tables, layers, uncertainties, events = zip(*ranks)
        # Of iterations, components and ranks.
        times = numpy.stack(tables, axis=2) * 1e6
        self._epochs.append(
            {
                "iterations": len(times),
                "wall": _rounded(times.sum(axis=1).mean()),
                "components": _rounded(times.mean(axis=(0, 2))),
                "by_rank": _rounded(times.mean(axis=0)),
                "layers": {
                    name: _rounded(
                        sum(of_rank[name] for of_rank in layers) / len(ranks) * 1e6
                    )
                    for name in layers[0]
                },
                "clock_uncertainty": _rounded(max(uncertainties) * 1e6),
            }
        )
        return {
            "components": breakdown.COMPONENTS,
            "of_layers": breakdown.OF_LAYERS,
            "epochs": self._epochs,
            "last_epoch": times.mean(axis=2).round().astype(int).tolist(),
            "timeline": {"iteration": chosen, **timeline.of_ranks(events)},
        }


def _rounded(microseconds):
    return numpy.round(microseconds, 1).tolist()


def _synchronizer(device):
    if device.xp is numpy:
        return None
    return lambda: device.xp.cuda.get_current_stream().synchronize()
