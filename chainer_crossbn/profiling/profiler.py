"""A Trainer extension that writes where the time of training goes."""

import json
import time
from typing import Any, NamedTuple

import numpy
from chainer.training import extension

from chainer_crossbn.profiling import breakdown, clock, timeline
from chainer_crossbn.profiling.recorder import Recorder, Step
from chainer_crossbn.runs import run_directory
from chainer_crossbn.training.extensions import GlobalEvaluator

# The iteration of median time among these of an epoch becomes the time line. The first
# few are left out.
_CANDIDATES = slice(4, 20)


class _Recorded(NamedTuple):
    """A step, and the seconds of its iteration and of the evaluation in that."""

    step: Step
    wall: float
    evaluation: float


class Profiler(extension.Extension):
    """Writes ``profile.json`` into the directory of a run at the end of each epoch.

    It holds, in microseconds and as means over the ranks: for each epoch, the time of
    an iteration by component (``breakdown.COMPONENTS``; also by rank) and by layer
    (``breakdown.OF_LAYERS``); for the last epoch, every iteration by component; and one
    iteration as a time line of all ranks (``timeline``). The arrivals of the ranks at a
    collective, by a clock that they share (``clock``), separate waiting for the slowest
    rank from the collective itself.

    Args:
        recorder (Recorder): ``context`` of the updater. Its :meth:`~.Recorder.timed`
            communicator is that of the optimizer.
        evaluator (GlobalEvaluator): Its time is subtracted.
        comm: ChainerMN communicator of all ranks, with ``mpi_comm``.
    """

    trigger = 1, "iteration"
    priority = -200  # after all others

    def __init__(
        self, recorder: Recorder, evaluator: GlobalEvaluator, comm: Any
    ) -> None:
        self._recorder = recorder
        self._evaluator = evaluator
        self._mpi_comm = comm.mpi_comm
        self._epochs: list[dict[str, Any]] = []

    def serialize(self, serializer):
        # Only rank 0 has any.
        epochs = serializer("epochs", json.dumps(self._epochs))
        self._epochs = json.loads(str(epochs))

    def initialize(self, trainer):
        self._mark, self._evaluated = time.perf_counter(), self._evaluator.seconds
        self._reading = clock.read(self._mpi_comm)
        self._recorded = []

    def __call__(self, trainer):
        mark, evaluated = time.perf_counter(), self._evaluator.seconds
        step = self._recorder.take_step(trainer.updater.phases)
        self._recorded.append(
            _Recorded(step, mark - self._mark, evaluated - self._evaluated)
        )
        self._mark, self._evaluated = mark, evaluated
        if trainer.updater.is_new_epoch:
            self._finish_epoch(trainer)

    def _finish_epoch(self, trainer):
        before, self._reading = self._reading, clock.read(self._mpi_comm)
        iterations = self._analyse(
            lambda times: clock.to_rank_zero(times, before, self._reading)
        )
        self._recorded = []
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
                timeline.events_of_rank(iterations[chosen]),
            )
        )
        if self._mpi_comm.rank == 0:
            run_directory.write_profile(trainer.out, self._describe(ranks, chosen))

    def _analyse(self, convert):
        """Return the epoch's iterations, in the clock that the ranks share."""
        steps = [recorded.step.converted(convert) for recorded in self._recorded]
        spans = numpy.concatenate([step.collectives for step in steps])
        wait = transfer = numpy.zeros(len(spans))
        bn_mpi_comm = self._recorder.bn_mpi_comm
        if bn_mpi_comm is not None:
            wait, transfer = breakdown.split_collectives(bn_mpi_comm, spans)
        ends = numpy.cumsum([len(step.parts) for step in steps])[:-1]
        waits, transfers = numpy.split(wait, ends), numpy.split(transfer, ends)
        all_reduce_waits, all_reduce_transfers = breakdown.split_collectives(
            self._mpi_comm, numpy.array([step.all_reduce for step in steps])
        )
        return [
            breakdown.Iteration(
                step=step,
                wall=recorded.wall,
                evaluation=recorded.evaluation,
                bn_wait=waits[i],
                bn_transfer=transfers[i],
                all_reduce_wait=all_reduce_waits[i],
                all_reduce_transfer=all_reduce_transfers[i],
            )
            for i, (step, recorded) in enumerate(zip(steps, self._recorded))
        ]

    def _describe(self, ranks, chosen):
        """Return the content of the file from the results of all ranks."""
        tables, layers, uncertainties, events = zip(*ranks)
        # Shape (iterations, components, ranks).
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
            "timeline": {"iteration": chosen, **timeline.table(events)},
        }


def _rounded(microseconds):
    return numpy.round(microseconds, 1).tolist()
