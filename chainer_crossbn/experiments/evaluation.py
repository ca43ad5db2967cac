"""An evaluation at one scale: its runs under each of its rules."""

from dataclasses import replace

from chainer_crossbn.experiments import definitions, jobs, scale_rules, scaling_runs
from chainer_crossbn.experiments.claims import CLAIMS
from chainer_crossbn.experiments.learning_rate_map import MapResults
from chainer_crossbn.experiments.results import Results


class Evaluation:
    """Gives the finished runs under each rule.

    Args:
        scale (Scale): The scale that they were made at.
        out (str): Directory that gathers them.
        quick_check (Evaluation or None): One at a smaller scale, from which all is
            taken that the scale does not have.

    Attributes:
        scale (Scale): As given.
        out (str): As given.
        quick_check (Evaluation or None): As given.
        rules (dict): From the name of a rule to the rule.
        results (dict): From the name of a rule to its :class:`.Results`.
        headline (Results): Those of the first rule.
        map (MapResults or None): The map of learning rates.
        model (Evaluation or None): The one that has the runs by ranks: this one or the
            quick check.
        scaling (dict or None): What that model says.

    Raises:
        UsageError: If the rules of the scale have not been chosen, or a directory holds
            another run.
    """

    def __init__(self, scale, out, quick_check=None):
        self.scale = scale
        self.out = out
        self.quick_check = quick_check
        self.rules = scale_rules.of(scale, out)
        self.map = quick_check and quick_check.map
        if scale.map:
            self.map = MapResults(scale, out)
        self.model = self if scale.scaling else quick_check
        self.scaling = quick_check and quick_check.scaling
        if scale.scaling:
            self.scaling = scaling_runs.model(scale, out)
        self.results = {
            name: Results(
                scale,
                out,
                rule,
                timed_rule=next(iter(self.rules.values())),
                scaling=self.scaling,
                of_map=self.map,
                quick_check=quick_check and quick_check.headline,
            )
            for name, rule in self.rules.items()
        }
        self.headline = next(iter(self.results.values()))

    @property
    def runs(self):
        """All finished runs of the experiments, as a list; shared ones once."""
        settings = dict.fromkeys(
            setting
            for experiment in definitions.every(self.scale)
            for setting in experiment.settings
        )
        found = {
            run.directory: run
            for results in self.results.values()
            for run in results.runs(settings)
        }
        return list(found.values())

    def judged(self):
        """Judge the claims.

        Returns:
            dict: From each :class:`.Claim` to a dict from the name of a rule to the
            :class:`.Judgement`. A claim that is not judged by rule has the first alone.
        """
        found = {}
        for claim in CLAIMS:
            results = self.results if claim.by_rule else {self.first: self.headline}
            found[claim] = {name: claim.judged(r) for name, r in results.items()}
        return found

    @property
    def first(self):
        """The name of the first rule."""
        return next(iter(self.rules))

    def rules_of(self, experiment):
        """Return the rules under which an experiment has runs of its own.

        Args:
            experiment (Experiment): One of this scale.

        Returns:
            list of str: The first rule, and those of which a run is not one of the
            first rule.
        """
        names = {
            name: {
                jobs.of(setting, self.scale, rule, 0).name
                for setting in experiment.settings
            }
            for name, rule in self.rules.items()
        }
        return [
            name
            for name in self.rules
            if name == self.first or names[name] != names[self.first]
        ]

    def described(self, rule):
        """Return the experiments whose figures a rule has, with titles that name it.

        Args:
            rule (str): Its name.

        Returns:
            dict: From the name of an experiment to it. Optional ones are left out
            unless they have a run of their own.
        """
        experiments = (
            *definitions.experiments(self.scale),
            *self.results[rule].optional(),
            *self.results[rule].beyond(),
        )
        return {
            e.name: replace(e, title=e.title + self.note(rule, e))
            for e in experiments
            if rule in self.rules_of(e)
        }

    def note(self, rule, experiment):
        """Return what a title adds of the rule: nothing where there is one alone."""
        several = len(self.rules_of(experiment)) > 1
        return f" ({rule} rule)" if several else ""

    def figure(self, name, rule):
        """Return the name of the figure of an experiment under a rule.

        Args:
            name (str): The name of the experiment.
            rule (str): The name of the rule.
        """
        return name if rule == self.first else f"{name}-{rule}"
