"""How long runs take: a model for the first estimate, then what was measured."""

import math

# Of CIFAR-10, where a scale takes all images.
_TRAIN, _TEST = 50_000, 10_000
# Measured with 8 ranks on 2 cores at width 16; elsewhere the measured runs correct it.
START = 4.0
_STEP = 0.065
_IMAGE = 0.4e-3
_TESTED_IMAGE = 0.2e-3


# One process with one thread, for all ranks.
_VIRTUAL_START = 8.0
_VIRTUAL_STEP = 0.01
_VIRTUAL_IMAGE = 1.7e-3
_VIRTUAL_TESTED_IMAGE = 0.35e-3


def seconds(job):
    """Estimate the duration of a run, before any has been measured.

    Args:
        job (Job): The run.

    Returns:
        float: Seconds.
    """
    flags = dict(job.flags)
    n_train, n_test = flags.get("train-size", _TRAIN), flags.get("test-size", _TEST)
    steps = math.ceil(n_train / (flags["batchsize"] * job.ranks))
    work = (flags["width"] / 16) ** 2
    if job.timed:
        images = n_train * _IMAGE + 2 * n_test * _TESTED_IMAGE
        return START + flags["epoch"] * (steps * _STEP + images * work)
    images = n_train * _VIRTUAL_IMAGE + 2 * n_test * _VIRTUAL_TESTED_IMAGE
    return _VIRTUAL_START + flags["epoch"] * (steps * _VIRTUAL_STEP + images * work)


def left(jobs, measured, at_once=1):
    """Estimate how long some runs take, given how long others took.

    Args:
        jobs (iterable of Job): What is left.
        measured (list): Pairs of a run and its seconds.
        at_once (int): How many are made at once, but for those whose times count.

    Returns:
        float: Seconds.
    """
    factor = 1.0
    if measured:
        taken = sum(duration for _, duration in measured)
        factor = taken / sum(seconds(job) for job, _ in measured)
    return factor * sum(seconds(j) / (1 if j.timed else at_once) for j in jobs)


def in_words(duration):
    """Return seconds in words, such as ``"1 h 32 min"``."""
    if duration < 90:
        return f"{duration:.0f} s"
    minutes = round(duration / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
