"""Take snapshots of a run, and end it on all ranks at once."""

import math
import sys
from typing import Callable, Optional

from chainer.training import extension
from chainer.training.triggers import IntervalTrigger

from chainer_crossbn.errors import Diverged, Ended
from chainer_crossbn.runs import run_directory
from chainer_crossbn.training.agreement import Agreement
from chainer_crossbn.training.progress import Progress
from chainer_crossbn.training.snapshots import state, storage

_ACCURACY = "validation/main/accuracy"


class Guard(extension.Extension):
    """Takes snapshots, and ends a run that shall stop or has failed, on all ranks.

    The other ranks know of a request or a failure on one rank after the next iteration
    (:class:`.Agreement`), or before the next snapshot, so that no snapshot is taken of
    a run that has failed. Rank 0 writes the snapshots; the others go on as soon as they
    have sent their part.

    Args:
        path (str): Directory of the run.
        comm: ChainerMN communicator with ``mpi_comm``.
        epochs (float): A snapshot is taken every ``epochs`` epochs; 0 disables.
        allow_nan (bool): Whether a run goes on when its loss is not finite.
        stop_requested (callable): Returns whether this rank shall stop.
        progress (Progress): Receives this rank's progress.
    """

    trigger = 1, "iteration"
    priority = -300  # after all others, as snapshots have their state

    def __init__(
        self,
        path: str,
        comm,
        epochs: float,
        allow_nan: bool,
        stop_requested: Callable[[], bool],
        progress: Progress,
    ):
        self._path = path
        self._comm = comm
        # Always there, as snapshots hold it and the interval may change.
        self._interval = IntervalTrigger(epochs or 1, "epoch")
        self._at_intervals = epochs > 0
        self._allow_nan = allow_nan
        self._stop_requested = stop_requested
        self._progress = progress
        self._agreement = Agreement(comm.mpi_comm, 2)
        self._failure: Optional[Ended] = None

    def __call__(self, trainer):
        self._progress.reach(f"the end of iteration {trainer.updater.iteration}")
        due = self._interval(trainer) and self._at_intervals
        if trainer.updater.not_finite is not None and not self._allow_nan:
            self._failure = self._failure or Diverged(
                f"the loss is not finite on rank {self._comm.rank} "
                f"{trainer.updater.not_finite}; {self._describe_snapshots()}: try a "
                "smaller --lr, or --allow-nan",
                1,
            )
        stop, failed = self._share_state()
        if due or stop or trainer.updater.is_new_epoch:
            failed += self._agreement.wait()[1]
        if failed:
            self._fail()
        if due or stop:
            self._take(trainer)
        if stop:
            self.settle()
            raise Ended(
                f"stopped after iteration {trainer.updater.iteration}; go on with "
                f"--resume {self._path}",
                0,
            )

    def settle(self) -> None:
        """Raise :class:`Ended` if any rank has failed; all ranks call it together."""
        self._share_state()
        if self._agreement.wait()[1]:
            self._fail()

    def _describe_snapshots(self):
        if storage.iterations(run_directory.snapshots_path(self._path)):
            return f"the last snapshot in {self._path} stays"
        return f"{self._path} has no snapshot"

    def _share_state(self):
        """Return on how many ranks a stop was requested, or something has failed."""
        return self._agreement.share(
            [self._stop_requested(), self._failure is not None]
        )

    def _fail(self):
        failures = self._comm.mpi_comm.allgather(self._failure)
        raise next(filter(None, failures))

    def _take(self, trainer):
        self._progress.reach(f"the snapshot of iteration {trainer.updater.iteration}")
        parts = state.collect(trainer, self._comm)
        if parts is None:
            return
        accuracy = trainer.observation.get(_ACCURACY, math.nan)
        about = {
            "epoch": trainer.updater.epoch_detail,
            "n_ranks": self._comm.size * trainer.updater.dropout.n_ranks,
            "virtual_ranks": trainer.updater.dropout.n_ranks,
            "accuracy": accuracy if math.isfinite(accuracy) else None,
        }
        folder = run_directory.snapshots_path(self._path)
        try:
            storage.write(folder, trainer.updater.iteration, parts, about, warn=_note)
        except OSError as error:
            self._failure = Ended(
                f"can't write the snapshot of iteration {trainer.updater.iteration} "
                f"({error.strerror}); those before are as they were: make room, and go "
                f"on with --resume {self._path}",
                1,
            )

    def serialize(self, serializer):
        self._interval.serialize(serializer["interval"])


def _note(line):
    print(f"train_cifar.py: note: {line}", file=sys.stderr, flush=True)
