"""The finished runs of an evaluation, under each of its rules."""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, Optional

from chainer_crossbn.experiments import definitions, jobs, records, scaling_runs
from chainer_crossbn.experiments.definitions import Experiment, Scale, Setting
from chainer_crossbn.experiments.learning_rate_map import MapResults
from chainer_crossbn.experiments.rules import Rule, rules_of
from chainer_crossbn.runs.reading import Run, read_statistics

# How a test can read normalBN's running statistics, of which each rank has its own.
READINGS = {
    "averaged": "averaged over the ranks",
    "rank0": "rank 0's own",
    "within": "the variance between ranks left out",
}

LEAST_SEEDS = 3  # fewer decide nothing of claims 1 to 6


class NotRun(Exception):
    """Runs are missing; the message names their settings."""


class Evaluation:
    """The evaluation at one scale.

    Args:
        scale (Scale): The scale of the runs.
        out (str): Directory that contains them.
        quick_check (Evaluation or None): An evaluation at a smaller scale, which
            provides what this scale does not have.

    Attributes:
        scale (Scale): As given.
        out (str): As given.
        quick_check (Evaluation or None): As given.
        rules (dict): Name -> rule.
        results (dict): Name of a rule -> :class:`Results`.
        map (MapResults or None): The map of learning rates.
        scaling_source (Evaluation or None): This evaluation or the quick check, to
            whose runs the model of the time of an iteration is fitted.
        scaling (dict or None): The content of ``scaling.json``.

    Raises:
        UsageError: If the rules of the scale have not been chosen, or a directory holds
            another run.
    """

    def __init__(
        self, scale: Scale, out: str, quick_check: Optional["Evaluation"] = None
    ) -> None:
        self.scale = scale
        self.out = out
        self.quick_check = quick_check
        self.rules = rules_of(scale, out)
        self.map = quick_check and quick_check.map
        if scale.map:
            self.map = MapResults(scale, out)
        self.scaling_source = quick_check
        self.scaling = quick_check and quick_check.scaling
        if scale.scaling:
            self.scaling_source = self
            self.scaling = scaling_runs.model(scale, out)
        self.results = {name: Results(self, rule) for name, rule in self.rules.items()}

    @property
    def first_rule(self) -> str:
        """The name of the first rule, under which timed runs are made."""
        return next(iter(self.rules))

    @property
    def headline(self) -> "Results":
        """The results under the first rule."""
        return self.results[self.first_rule]

    @property
    def runs(self) -> list[Run]:
        """All finished runs of the experiments, each once."""
        settings = dict.fromkeys(
            setting
            for experiment in definitions.every(self.scale)
            for setting in experiment.settings
        )
        runs = [run for each in self.results.values() for run in each.runs(settings)]
        return list({run.directory: run for run in runs}.values())

    def rules_for(self, experiment: Experiment) -> list[str]:
        """Return the names of the rules under which an experiment has its own runs.

        These are the first rule, and those that differ from it in a run.
        """
        names = {
            name: {
                jobs.experiment_job(setting, self.scale, rule, seed=0).name
                for setting in experiment.settings
            }
            for name, rule in self.rules.items()
        }
        first = names[self.first_rule]
        return [
            name
            for name in self.rules
            if name == self.first_rule or names[name] != first
        ]

    def experiments_under(self, rule: str) -> dict[str, Experiment]:
        """Return the experiments that have figures under a rule.

        Returns:
            dict: Name -> experiment, whose title names the rule where it has several.
            Optional experiments without a run of their own are left out.
        """
        results = self.results[rule]
        experiments = (
            *definitions.experiments(self.scale),
            *results.with_own_runs(definitions.optional(self.scale)),
            *results.with_own_runs(definitions.beyond(self.scale)),
        )
        return {
            e.name: replace(e, title=f"{e.title}{self.rule_note(rule, e)}")
            for e in experiments
            if rule in self.rules_for(e)
        }

    def rule_note(self, rule: str, experiment: Experiment) -> str:
        """Return what a title says of the rule; empty where there is only one."""
        several = len(self.rules_for(experiment)) > 1
        return f" ({rule} rule)" if several else ""

    def figure_name(self, experiment: str, rule: str) -> str:
        """Return the name of the figure of an experiment under a rule."""
        return experiment if rule == self.first_rule else f"{experiment}-{rule}"


class Results:
    """The finished runs of an evaluation under one rule, read when they are needed.

    Args:
        evaluation (Evaluation): The evaluation.
        rule (Rule): Initial weights and learning rate of the runs.

    Attributes:
        evaluation (Evaluation): As given.
        scale (Scale): The scale of the evaluation.
        rule (Rule): As given.
        least_seeds (int): Seeds without which claims 1 to 6 are undecided.
    """

    least_seeds = LEAST_SEEDS

    def __init__(self, evaluation: Evaluation, rule: Rule) -> None:
        self.evaluation = evaluation
        self.scale = evaluation.scale
        self.rule = rule
        self._by_setting: dict[Setting, dict[int, Run]] = {}

    @property
    def n_test(self) -> int:
        """Number of test images of each run."""
        return self.scale.test_size or 10_000

    def by_seed(self, setting: Setting) -> dict[int, Run]:
        """Return the finished runs of a setting: seed -> run."""
        if setting not in self._by_setting:
            self._by_setting[setting] = self._read(setting)
        return self._by_setting[setting]

    def _read(self, setting):
        evaluation = self.evaluation
        rules = evaluation.rules
        rule = rules[evaluation.first_rule] if setting.timed else self.rule
        out = evaluation.out
        first = jobs.experiment_job(setting, self.scale, rule, seed=0).directory(out)
        pattern = re.compile(re.escape(first.name[:-1]) + r"(0|[1-9]\d*)")
        names = [path.name for path in first.parent.glob("*-s*")]
        seeds = sorted(int(m[1]) for m in map(pattern.fullmatch, names) if m)
        runs = {}
        for seed in seeds:
            job = jobs.experiment_job(setting, self.scale, rule, seed)
            run = records.read(job, out)
            if run:
                runs[seed] = run
        return runs

    def runs(self, settings: Iterable[Setting]) -> list[Run]:
        """Return all finished runs of some settings."""
        return [run for setting in settings for run in self.by_seed(setting).values()]

    def source(self, settings: Collection[Setting]) -> "Results":
        """Return the results that have the runs of some settings.

        These are the quick check's if this evaluation has none of the runs, and all of
        them are timed.
        """
        quick = self.evaluation.quick_check
        timed = all(setting.timed for setting in settings)
        if quick is None or not timed or self.runs(settings):
            return self
        return quick.headline

    def with_own_runs(
        self, experiments: Iterable[Experiment]
    ) -> tuple[Experiment, ...]:
        """Return the experiments with a run that those of the paper don't have."""
        shared = {
            setting
            for experiment in definitions.experiments(self.scale)
            for setting in experiment.settings
        }
        return tuple(
            experiment
            for experiment in experiments
            if self.runs(s for s in experiment.settings if s not in shared)
        )

    def paired(self, *settings: Setting) -> list[tuple[Run, ...]]:
        """Return the runs that some settings have with the same seed.

        Returns:
            list of tuple: One per seed; a run of each setting.

        Raises:
            NotRun: If there is none.
        """
        columns = [self.by_seed(setting) for setting in settings]
        seeds = sorted(set.intersection(*map(set, columns)))
        if not seeds:
            raise NotRun(" and ".join(map(jobs.setting_name, settings)))
        return [tuple(column[seed] for column in columns) for seed in seeds]


def accuracy_with(run: Run, reading: str) -> float:
    """Return the final test accuracy of a run, between 0 and 1.

    Args:
        run (Run): A finished run.
        reading (str): One of :data:`READINGS`; they differ for normalBN alone.
    """
    readings = read_statistics(run.directory)["test"]
    if reading not in readings:
        return run.final_accuracy
    return readings[reading]["accuracy"]


def deviations(run: Run) -> list[dict[str, Any]]:
    """Return how far local statistics are from global ones at the end, per layer."""
    return read_statistics(run.directory)["layers"]
