"""The finished runs of an evaluation, by what they trained."""

import json
import re
from pathlib import Path

from chainer_crossbn.experiments import (
    definitions,
    jobs,
    records,
    scaling_runs,
    search,
)

# How the ranks' running statistics of normalBN are read in a test.
READINGS = {
    "averaged": "averaged over the ranks",
    "rank0": "rank 0's own",
    "within": "the variance between ranks left out",
}


class NotRun(Exception):
    """Runs are missing; the message names their setting."""


class Results:
    """Reads runs when they are asked for.

    Args:
        scale (Scale): The scale that they were made at.
        out (str): Directory that gathers them.

    Attributes:
        scale (Scale): As given.
        out (str): As given.
        rule (Rule): Initial weights and learning rate of all runs.
        scaling (dict or None): What the model of an iteration's time says; ``None``
            where its runs are missing.
    """

    def __init__(self, scale, out):
        self.scale = scale
        self.out = out
        self.rule = search.chosen(out)
        self.scaling = scaling_runs.model(scale, out)
        self._by_setting = {}

    def by_seed(self, setting):
        """Return the finished runs of a setting.

        Args:
            setting (Setting): What was trained.

        Returns:
            dict: From seed to :class:`~chainer_crossbn.plotting.runs.Run`; may be
            empty.
        """
        if setting not in self._by_setting:
            self._by_setting[setting] = self._read(setting)
        return self._by_setting[setting]

    def _read(self, setting):
        pattern = re.compile(re.escape(jobs.words(setting)) + r"-s(0|[1-9]\d*)")
        names = [path.name for path in Path(self.out).glob("*-s*")]
        seeds = sorted(int(m[1]) for m in map(pattern.fullmatch, names) if m)
        found = {}
        for seed in seeds:
            job = jobs.of(setting, self.scale, self.rule, seed)
            run = records.read(job, self.out)
            if run:
                found[seed] = run
        return found

    def runs(self, settings):
        """Return all finished runs of some settings as a list."""
        return [run for setting in settings for run in self.by_seed(setting).values()]

    def beyond(self):
        """Return the experiments beyond the paper that have a run of their own."""
        return [
            experiment
            for experiment in definitions.beyond(self.scale)
            if self.runs(s for s in experiment.settings if s.options)
        ]

    def first(self, setting):
        """Return the finished run of the first seed, in a list, which may be empty."""
        return list(self.by_seed(setting).values())[:1]

    def paired(self, *settings):
        """Return the runs that some settings have of the same seed.

        Returns:
            list of tuple: One a seed; a run of each setting.

        Raises:
            NotRun: If there is none.
        """
        columns = [self.by_seed(setting) for setting in settings]
        seeds = sorted(set.intersection(*map(set, columns)))
        if not seeds:
            raise NotRun(" and ".join(map(jobs.words, settings)))
        return [tuple(column[seed] for column in columns) for seed in seeds]


def tested(run, reading):
    """Return the final test accuracy of a run.

    Args:
        run (Run): A finished run.
        reading (str): One of :data:`READINGS`; they differ for normalBN alone.

    Returns:
        float: Between 0 and 1.
    """
    readings = _statistics(run)["test"]
    if reading not in readings:
        return run.final_accuracy
    return readings[reading]["accuracy"]


def deviations(run):
    """Return how far local statistics lay from global ones at the end of a run.

    Returns:
        list of dict: As in ``statistics.json``, layer by layer.
    """
    return _statistics(run)["layers"]


def record(run):
    """Return all that ``args.json`` has of a run."""
    return json.loads((run.directory / "args.json").read_text())


def _statistics(run):
    return json.loads((run.directory / "statistics.json").read_text())
