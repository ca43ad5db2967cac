"""Loss, accuracy and speed of an epoch's training steps."""

import chainer
from chainer.training import extension


class EpochStatistics(extension.Extension):
    """Reports statistics of the training steps of an epoch, over all ranks.

    Reports ``main/loss`` (mean cross entropy), ``main/accuracy``, ``train_time``
    (seconds of all steps so far) and ``images_per_second`` (of all ranks, in this
    epoch's steps).

    Args:
        comm: ChainerMN communicator.
    """

    trigger = 1, "epoch"
    priority = extension.PRIORITY_WRITER

    def __init__(self, comm):
        self._comm = comm
        self._previous_time = 0.0

    def __call__(self, trainer):
        updater = trainer.updater
        loss, correct, n = self._comm.allreduce(updater.take_sums())
        seconds = updater.train_time - self._previous_time
        self._previous_time = updater.train_time
        chainer.report(
            {
                "main/loss": loss / n,
                "main/accuracy": correct / n,
                "train_time": updater.train_time,
                "images_per_second": n / seconds,
            }
        )

    def serialize(self, serializer):
        self._previous_time = serializer("previous_time", self._previous_time)
