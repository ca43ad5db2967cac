"""The map of learning rates: final accuracies over the grid rate x batch size.

A rule for the learning rate (constant, square root of the batch size, linear in it) is
a path through this grid, so that it is run once and every rule can be judged from it.
"""

import math

import numpy as np

from chainer_crossbn.experiments import jobs, records
from chainer_crossbn.runs.reading import (
    TEST_ACCURACY,
    TEST_LOSS,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
    Run,
    read_record,
)

NAME = "map"
TITLE = "Map of learning rates: accuracy by rate, batch size and initial weights"


def planned(scale):
    """Return the runs of the map.

    Args:
        scale (Scale): How large.

    Returns:
        list of Job: In the order in which they are to run.
    """
    return [jobs.of_map(*point, scale) for point in _points(scale)]


class MapResults:
    """The runs of the map that are there.

    A run that has diverged counts as one at chance level: its accuracies are those of
    guessing in every epoch, and its losses are NaN.

    Args:
        scale (Scale): The scale that they were made at.
        out (str): Directory that gathers all.

    Attributes:
        scale (Scale): As given.
        out (str): As given.
        n_planned (int): How many runs the whole map has.

    Raises:
        UsageError: If a directory holds another run.
    """

    def __init__(self, scale, out):
        self.scale = scale
        self.out = out
        points = _points(scale)
        self.n_planned = len(points)
        read = {point: _read(jobs.of_map(*point, scale), out) for point in points}
        self._by_point = {point: run for point, run in read.items() if run}

    @property
    def runs(self):
        """All runs, as a list."""
        return list(self._by_point.values())

    @property
    def n_test(self):
        """Test images that each run has; all of them have the same."""
        return self.runs[0].dataset["test"]

    def run(self, bn, batch, init, rate):
        """Return a run.

        Args:
            bn (str): Value of ``--bn``.
            batch (int): Mini-batch size per rank.
            init (str): Value of ``--init``.
            rate (float): Learning rate, one of the grid's.

        Returns:
            chainer_crossbn.runs.reading.Run or None: ``None`` if it is missing.
        """
        return self._by_point.get((bn, batch, init, rate))


def has_diverged(run):
    """Tell whether a run of the map has diverged.

    Args:
        run (Run): As :class:`MapResults` gives it.
    """
    return run.nan_epoch is not None


def _points(scale):
    """Return all (bn, batch, init, rate), from the middle rate outwards.

    So a part of the map tells most.
    """
    middle = math.log(scale.map.rates[len(scale.map.rates) // 2])
    rates = sorted(scale.map.rates, key=lambda rate: abs(math.log(rate) - middle))
    return [
        (bn, batch, init, rate)
        for init in scale.map.inits
        for rate in rates
        for bn, batch in scale.map.cells
    ]


def _read(job, out):
    if records.has_diverged(job, out):
        return _at_chance(job, out)
    return records.read(job, out)


def _at_chance(job, out):
    """Return what stands in for a run that has diverged."""
    directory = job.directory(out)
    record = read_record(directory)
    epochs = np.arange(1.0, dict(job.flags)["epoch"] + 1)
    chance, nothing = np.full_like(epochs, records.CHANCE), np.full_like(epochs, np.nan)
    return Run(
        directory=directory,
        record=record,
        columns={
            "epoch": epochs,
            "train_time": nothing,
            "elapsed_time": nothing,
            TRAIN_LOSS: nothing,
            TEST_LOSS: nothing,
            TRAIN_ACCURACY: chance,
            TEST_ACCURACY: chance,
        },
        finished=True,
    )
