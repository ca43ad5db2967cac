"""Choose two rules for larger runs by the map of learning rates.

The *constant rule* has the initialization and the learning rate at which normalBN at
batch size 64 has its best test accuracy in the map, and that rate at every batch size.

The *best rule* is the one, of any initialization, scaling and rate, under which the
mean of the final test accuracies of all seven networks of the map is highest. Where its
rate falls between two of the map, the mean of both accuracies counts. Rules with a
missing run are left out.

Neither depends on the paper's claims. Where several do equally well, the first of the
grid is taken.
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from chainer_crossbn.experiments.learning_rate_map import (
    NAME,
    MapResults,
    grid_rates,
    rules_within,
)
from chainer_crossbn.experiments.results import NotRun
from chainer_crossbn.experiments.rules import Rule, rule_of
from chainer_crossbn.plotting import networks
from chainer_crossbn.runs.files import write_json

_BN, _BATCH = "normal", 64


def choose(results: MapResults) -> dict[str, Any]:
    """Choose the rules.

    Returns:
        dict: The content of ``map.json``: both rules, and the numbers that they were
        chosen by.

    Raises:
        NotRun: If a run of normalBN at 64 is missing, or every rule lacks a run.
    """
    rules = rules_within(results.scale)
    means = {rule: mean_accuracy(rule, results) for rule in rules}
    complete = {rule: mean for rule, mean in means.items() if mean is not None}
    constant, accuracy = _constant_rule(rules, results)
    if not complete:
        raise NotRun("some of the runs of every rule")
    best = max(complete, key=complete.get)
    return {
        "program": "chainer_crossbn",
        "scale": results.scale.name,
        "runs": len(results.runs),
        "planned_runs": results.n_planned,
        "rules": len(complete),
        "planned_rules": len(rules),
        "constant": {
            **asdict(constant),
            "test_accuracy": {f"{_BN}-b{_BATCH}": accuracy},
        },
        "best": {
            **asdict(best),
            "mean_test_accuracy": complete[best],
            "test_accuracy": {
                f"{bn}-b{batch}": _accuracy(bn, batch, best, results)
                for bn, batch in results.scale.map.cells
            },
        },
    }


def conclude(results: MapResults) -> dict[str, Any]:
    """Choose the rules, and write ``map.json`` into the directory of the map.

    Returns:
        dict: As :func:`choose` returns it.

    Raises:
        NotRun: As :func:`choose` does; then nothing is written.
    """
    choice = choose(results)
    write_json(Path(results.out, f"{NAME}.json"), choice)
    return choice


def describe(choice: dict[str, Any]) -> list[str]:
    """Describe both rules and their numbers, in a line each.

    Args:
        choice (dict): As :func:`choose` returns it.
    """
    constant, best = choice["constant"], choice["best"]
    (accuracy,) = constant["test_accuracy"].values()
    mean, n = best["mean_test_accuracy"], choice["rules"]
    planned = "" if n == choice["planned_rules"] else f" of {choice['planned_rules']}"
    return [
        f"constant rule: {rule_of(constant)} (test accuracy of {networks.name(_BN)} at "
        f"{_BATCH}: {accuracy:.1%})",
        f"best rule: {rule_of(best)} (mean test accuracy of the "
        f"{len(best['test_accuracy'])} networks: {mean:.1%}, the highest of "
        f"{n}{planned} rules)",
    ]


def mean_accuracy(rule: Rule, results: MapResults) -> Optional[float]:
    """Return the mean of the final test accuracies of all networks under a rule.

    Returns:
        float or None: ``None`` where a run is missing.
    """
    cells = results.scale.map.cells
    accuracies = [_accuracy(bn, batch, rule, results) for bn, batch in cells]
    if None in accuracies:
        return None
    return round(math.fsum(accuracies) / len(accuracies), 6)


def _accuracy(bn, batch, rule, results):
    """Return the final test accuracy; the mean of two between two rates of the map."""
    rates = grid_rates(rule, results.scale)[batch]
    runs = [results.run(bn, batch, rule.init, rate) for rate in rates]
    if None in runs:
        return None
    return round(math.fsum(run.final_accuracy for run in runs) / len(runs), 6)


def _constant_rule(rules, results):
    """Return the constant rule, and the accuracy that it was chosen by."""
    accuracies = {
        rule: _accuracy(_BN, _BATCH, rule, results)
        for rule in rules
        if rule.scaling == "constant"
    }
    n_missing = sum(accuracy is None for accuracy in accuracies.values())
    if n_missing:
        name = networks.name(_BN)
        raise NotRun(f"{n_missing} of {len(accuracies)} runs of {name} at {_BATCH}")
    best = max(accuracies, key=accuracies.get)
    return best, accuracies[best]
