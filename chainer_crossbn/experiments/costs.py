"""How long runs take: estimated by a model at first, then by the finished runs."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from chainer_crossbn.experiments.jobs import Job

# Of CIFAR-10, where a scale takes all images.
_TRAIN, _TEST = 50_000, 10_000
# Seconds before training starts.
START = 4.0


class _Speed(NamedTuple):
    """Seconds at width 16, as measured on 2 cores; finished runs correct them."""

    start: float
    step: float
    train_image: float
    test_image: float


# A process for each of 8 ranks.
_PROCESSES = _Speed(START, 0.065, 0.4e-3, 0.2e-3)
# One process with one thread, for all ranks.
_VIRTUAL_RANKS = _Speed(8.0, 0.01, 1.7e-3, 0.35e-3)


def estimate(job: Job) -> float:
    """Estimate the seconds of a run, before any has been measured."""
    flags = dict(job.flags)
    speed = _PROCESSES if job.timed else _VIRTUAL_RANKS
    n_train, n_test = flags.get("train-size", _TRAIN), flags.get("test-size", _TEST)
    steps = math.ceil(n_train / (flags["batchsize"] * job.ranks))
    images = n_train * speed.train_image + 2 * n_test * speed.test_image
    work = (flags["width"] / 16) ** 2
    return speed.start + flags["epoch"] * (steps * speed.step + images * work)


def estimate_left(
    jobs: Iterable[Job], measured: list[tuple[Job, float]], at_once: int = 1
) -> float:
    """Estimate the seconds that some runs take, from those that others took.

    Args:
        jobs (iterable of Job): The runs that are left.
        measured (list): Pairs of a finished run and its seconds.
        at_once (int): How many run at once; timed runs run alone.
    """
    factor = 1.0
    if measured:
        seconds = sum(seconds for _, seconds in measured)
        factor = seconds / sum(estimate(job) for job, _ in measured)
    return factor * sum(estimate(j) / (1 if j.timed else at_once) for j in jobs)


def format_seconds(seconds: float) -> str:
    """Format a duration, such as ``"1 h 32 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
