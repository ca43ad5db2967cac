"""The map of learning rates: final accuracies over the grid rate x batch size.

A rule for the learning rate (constant, square root of the batch size, linear in it) is
a path through this grid. So the grid is run once, and every rule is judged from it.
"""

import itertools
import math
from typing import Optional

import numpy as np

from chainer_crossbn.experiments import jobs, records
from chainer_crossbn.experiments.definitions import Scale
from chainer_crossbn.experiments.jobs import Job
from chainer_crossbn.experiments.rules import Rule
from chainer_crossbn.runs.learning_rate import REFERENCE_GLOBAL_BATCH, SCALINGS
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
LARGEST_BATCH = 64  # per rank; tables give the rate of a rule at this batch size
# Rules round to 4 digits, and the rates of a grid are a factor of 2 apart.
_TOLERANCE = 1e-3


def planned(scale: Scale) -> list[Job]:
    """Return the runs of the map, in the order of running."""
    return [jobs.map_job(*point, scale) for point in _points(scale)]


class MapResults:
    """The finished runs of the map.

    A run that has diverged counts as one at chance level: its accuracies are those of
    guessing in every epoch, and its losses are NaN.

    Attributes:
        scale (Scale): As given.
        out (str): As given.
        n_planned (int): Number of runs of the whole map.

    Raises:
        UsageError: If a directory holds another run.
    """

    def __init__(self, scale: Scale, out: str) -> None:
        self.scale = scale
        self.out = out
        points = _points(scale)
        self.n_planned = len(points)
        runs = {point: _read(jobs.map_job(*point, scale), out) for point in points}
        self._by_point = {point: run for point, run in runs.items() if run}

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return list(self._by_point.values())

    @property
    def n_test(self) -> int:
        """Number of test images, which is the same for all runs."""
        return self.runs[0].dataset["test"]

    def run(self, bn: str, batch: int, init: str, rate: float) -> Optional[Run]:
        """Return a run, or ``None`` if it is missing.

        Args:
            bn (str): Value of ``--bn``.
            batch (int): Mini-batch size per rank.
            init (str): Value of ``--init``.
            rate (float): Learning rate, one of the grid's.
        """
        return self._by_point.get((bn, batch, init, rate))


def has_diverged(run: Run) -> bool:
    """Return whether a run of the map has diverged."""
    return run.nan_epoch is not None


def rules_within(scale: Scale) -> list[Rule]:
    """Return the rules whose rates all lie within the grid.

    Returns:
        list of Rule: By initialization, scaling and rate; the rate at
        :data:`LARGEST_BATCH` is one of the grid's.
    """
    share = REFERENCE_GLOBAL_BATCH / (LARGEST_BATCH * scale.ranks)
    rules = [
        Rule(init, rate * factor(share), scaling)
        for init in scale.map.inits
        for scaling, factor in SCALINGS.items()
        for rate in scale.map.rates
    ]
    return [rule for rule in rules if all(grid_rates(rule, scale).values())]


def grid_rates(rule: Rule, scale: Scale) -> dict[int, tuple[float, ...]]:
    """Return the rates of the grid on the path of a rule.

    Returns:
        dict: Batch size per rank -> the rate; or both neighbours, where the rate of the
        rule falls between two of the grid; or nothing, where it lies beyond.
    """
    batches = dict.fromkeys(batch for _, batch in scale.map.cells)
    return {
        batch: _neighbours(rule.rate(batch * scale.ranks), scale.map.rates)
        for batch in batches
    }


def grid_choices(rule: Rule, scale: Scale) -> list[dict[int, float]]:
    """Return every choice among the neighbours on the path of a rule.

    Returns:
        list of dict: Batch size per rank -> a rate of the grid.
    """
    rates = grid_rates(rule, scale)
    return [dict(zip(rates, chosen)) for chosen in itertools.product(*rates.values())]


def _neighbours(rate, grid):
    same = tuple(r for r in grid if math.isclose(r, rate, rel_tol=_TOLERANCE))
    below, above = [r for r in grid if r < rate], [r for r in grid if r > rate]
    if same or not (below and above):
        return same
    return max(below), min(above)


def _points(scale):
    """Return all (bn, batch, init, rate), from the middle rate outwards.

    So an unfinished map has the rates that matter most.
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
    if not records.has_diverged(job, out):
        return records.read(job, out)
    directory = job.directory(out)
    epochs = np.arange(1.0, dict(job.flags)["epoch"] + 1)
    chance, nothing = np.full_like(epochs, records.CHANCE), np.full_like(epochs, np.nan)
    columns = {
        "epoch": epochs,
        **dict.fromkeys(("train_time", "elapsed_time", TRAIN_LOSS, TEST_LOSS), nothing),
        **dict.fromkeys((TRAIN_ACCURACY, TEST_ACCURACY), chance),
    }
    return Run(directory, read_record(directory), columns, finished=True)
