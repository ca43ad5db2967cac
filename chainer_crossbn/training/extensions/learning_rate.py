"""Schedules of the learning rate, as functions of the number of completed epochs."""

import bisect
import math
from collections.abc import Sequence
from typing import Callable

from chainer.training import PRIORITY_READER, Extension

Schedule = Callable[[int], float]


def step(lr: float, every: int, factor: float) -> Schedule:
    """Multiply ``lr`` by ``factor`` every ``every`` epochs; 0 disables."""
    return lambda epoch: lr * factor ** (epoch // every if every else 0)


def milestones(lr: float, epochs: Sequence[int], factor: float) -> Schedule:
    """Multiply ``lr`` by ``factor`` after each of ``epochs``."""
    return lambda epoch: lr * factor ** bisect.bisect_right(epochs, epoch)


def cosine(lr: float, n_epochs: int) -> Schedule:
    """Decrease ``lr`` to 0 after ``n_epochs`` epochs, along half a cosine.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    equation 5, without restarts.
    """
    return lambda epoch: lr * (1 + math.cos(math.pi * epoch / n_epochs)) / 2


class LearningRate(Extension):
    """Sets the learning rate of the main optimizer after each epoch.

    It has no state, so a resumed run has the right rate, too (Chainer's
    ``MultistepShift`` restarts from the initial rate).

    Args:
        schedule (callable): Maps the number of completed epochs to the rate.
    """

    trigger = 1, "epoch"
    # After the log, so that an epoch is logged with the rate that it had.
    priority = PRIORITY_READER - 1

    def __init__(self, schedule: Schedule):
        self._schedule = schedule

    def initialize(self, trainer):
        self(trainer)

    def __call__(self, trainer):
        optimizer = trainer.updater.get_optimizer("main")
        optimizer.lr = self._schedule(trainer.updater.epoch)
