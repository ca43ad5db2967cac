"""The finished runs of an evaluation, by what they trained."""

import re

from chainer_crossbn.experiments import definitions, jobs, records
from chainer_crossbn.runs.reading import read_statistics

# How the ranks' running statistics of normalBN are read in a test.
READINGS = {
    "averaged": "averaged over the ranks",
    "rank0": "rank 0's own",
    "within": "the variance between ranks left out",
}

LEAST_SEEDS = 3  # fewer tell nothing of claims 1 to 6


class NotRun(Exception):
    """Runs are missing; the message names their setting."""


class Results:
    """Reads runs under one rule when they are asked for.

    Args:
        scale (Scale): The scale that they were made at.
        out (str): Directory that gathers them.
        rule (Rule): Initial weights and learning rate of the runs.
        timed_rule (Rule): The same of the runs whose times count.
        scaling (dict or None): What the model of an iteration's time says.
        of_map (MapResults or None): The map of learning rates.
        quick_check (Results or None): Runs at a smaller scale.

    Attributes:
        scale (Scale): As given.
        rule (Rule): As given.
        scaling (dict or None): As given.
        map (MapResults or None): As given.
        least_seeds (int): Seeds without which nothing is told of claims 1 to 6.
    """

    least_seeds = LEAST_SEEDS

    def __init__(
        self, scale, out, rule, timed_rule, scaling=None, of_map=None, quick_check=None
    ):
        self.scale = scale
        self.rule = rule
        self.scaling = scaling
        self.map = of_map
        self._out = out
        self._timed_rule = timed_rule
        self._quick_check = quick_check
        self._by_setting = {}

    @property
    def n_test(self):
        """Test images of each run."""
        return self.scale.test_size or 10_000

    def by_seed(self, setting):
        """Return the finished runs of a setting.

        Args:
            setting (Setting): What was trained.

        Returns:
            dict: From seed to :class:`~chainer_crossbn.runs.reading.Run`; may be
            empty.
        """
        if setting not in self._by_setting:
            self._by_setting[setting] = self._read(setting)
        return self._by_setting[setting]

    def _read(self, setting):
        rule = self._timed_rule if setting.timed else self.rule
        first = jobs.of(setting, self.scale, rule, 0).directory(self._out)
        pattern = re.compile(re.escape(first.name[:-1]) + r"(0|[1-9]\d*)")
        names = [path.name for path in first.parent.glob("*-s*")]
        seeds = sorted(int(m[1]) for m in map(pattern.fullmatch, names) if m)
        found = {}
        for seed in seeds:
            job = jobs.of(setting, self.scale, rule, seed)
            run = records.read(job, self._out)
            if run:
                found[seed] = run
        return found

    def runs(self, settings):
        """Return all finished runs of some settings as a list."""
        return [run for setting in settings for run in self.by_seed(setting).values()]

    def source(self, settings):
        """Return where the runs of some settings are read.

        Args:
            settings (collection of Setting): What was trained.

        Returns:
            Results: These; or the quick check, if these have none of the runs, and only
            their times count.
        """
        if self._quick_check is None or self.runs(settings):
            return self
        return self._quick_check if all(s.timed for s in settings) else self

    def optional(self):
        """Return the optional experiments that have a run of their own."""
        return self._with_own_runs(definitions.optional(self.scale))

    def beyond(self):
        """Return the experiments beyond the paper that have a run of their own."""
        return self._with_own_runs(definitions.beyond(self.scale))

    def _with_own_runs(self, described):
        shared = {
            setting
            for experiment in definitions.experiments(self.scale)
            for setting in experiment.settings
        }
        return tuple(
            experiment
            for experiment in described
            if self.runs(s for s in experiment.settings if s not in shared)
        )

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
        run (Run): A finished run, or the stand-in for one that has diverged.
        reading (str): One of :data:`READINGS`; they differ for normalBN alone.

    Returns:
        float: Between 0 and 1.
    """
    readings = read_statistics(run.directory)["test"]
    if reading not in readings:
        return run.final_accuracy
    return readings[reading]["accuracy"]


def deviations(run):
    """Return how far local statistics lay from global ones at the end of a run.

    Returns:
        list of dict: As in ``statistics.json``, layer by layer.
    """
    return read_statistics(run.directory)["layers"]
