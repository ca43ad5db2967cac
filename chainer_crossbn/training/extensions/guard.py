"""Snapshots while a run goes on, and an orderly end where it can't."""

import math

from chainer.training import extension
from chainer.training.triggers import IntervalTrigger

from chainer_crossbn.errors import Diverged, Ended
from chainer_crossbn.runs import run_directory
from chainer_crossbn.training.agreement import Agreement
from chainer_crossbn.training.snapshots import state, storage

_ACCURACY = "validation/main/accuracy"


class Guard(extension.Extension):
    """Takes snapshots; ends a run that is to stop, or has failed, on all ranks at once.

    What happens on one rank the others learn after the next iteration
    (:class:`.Agreement`), or before a snapshot is taken, so
    that none is taken of what has failed. Rank 0 writes snapshots; the others go on as
    soon as they have handed over their part.

    Args:
        path (str): Directory of the run.
        comm: ChainerMN communicator with ``mpi_comm``.
        epochs (float): Epochs after which a snapshot is taken, again and again; 0:
            never.
        allow_nan (bool): Whether a run goes on when its loss is no finite number.
        stop_asked (callable): Whether this rank has been asked to stop.
        note_place (callable): Told in words what comes next.
    """

    trigger = 1, "iteration"
    priority = -300  # after all others, as snapshots have their state

    def __init__(self, path, comm, epochs, allow_nan, stop_asked, note_place):
        self._path = path
        self._comm = comm
        # In snapshots it is there in any case, as the interval may change.
        self._interval = IntervalTrigger(epochs or 1, "epoch")
        self._at_intervals = epochs > 0
        self._allow_nan = allow_nan
        self._stop_asked = stop_asked
        self._note_place = note_place
        self._agreement = Agreement(comm.mpi_comm, 2)
        self._failure = None

    def __call__(self, trainer):
        self._note_place(f"the end of iteration {trainer.updater.iteration}")
        due = self._interval(trainer) and self._at_intervals
        if trainer.updater.not_finite is not None and not self._allow_nan:
            self._failure = self._failure or Diverged(
                f"the loss is not finite on rank {self._comm.rank} "
                f"{trainer.updater.not_finite}; the last snapshot in {self._path} "
                "stays: try a smaller --lr, or --allow-nan",
                1,
            )
        stop, failed = self._tell()
        if due or stop or trainer.updater.is_new_epoch:
            failed += self._agreement.hear()[1]
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

    def settle(self):
        """Raise :class:`Ended` if any rank has failed; all ranks call it together."""
        self._tell()
        if self._agreement.hear()[1]:
            self._fail()

    def _tell(self):
        return self._agreement.tell([self._stop_asked(), self._failure is not None])

    def _fail(self):
        failures = self._comm.mpi_comm.allgather(self._failure)
        raise next(filter(None, failures))

    def _take(self, trainer):
        self._note_place(f"the snapshot of iteration {trainer.updater.iteration}")
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
            storage.write(folder, trainer.updater.iteration, parts, about)
        except OSError as error:
            self._failure = Ended(
                f"can't write the snapshot of iteration {trainer.updater.iteration} "
                f"({error.strerror}); those before are as they were: make room, and go "
                f"on with --resume {self._path}",
                1,
            )

    def serialize(self, serializer):
        self._interval.serialize(serializer["interval"])
