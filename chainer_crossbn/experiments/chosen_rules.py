"""Two rules for the learning rate, chosen by the map for larger runs.

The *constant rule* has the initialization and the learning rate at which normalBN at
batch size 64 has its best test accuracy in the map, and that rate at every batch size.

The *best rule* is the one, of any initialization, scaling and rate, under which the
mean of the final test accuracies of all seven networks of the map is highest. Where its
rate falls between two of the map, the mean of both accuracies counts. Rules of which a
run is missing are left out.

Neither looks at the paper's claims. Where several do equally well, the first of the
grid is taken.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import rule_paths
from chainer_crossbn.experiments.results import NotRun
from chainer_crossbn.experiments.rule import Rule
from chainer_crossbn.plotting import networks
from chainer_crossbn.runs.files import write_json

_FILE = "map.json"
_COMMITTED = Path(__file__).resolve().parents[2] / "reproduction" / "laptop" / _FILE
_BN, _BATCH = "normal", 64


class ChosenRules(NamedTuple):
    """The two rules."""

    constant: Rule
    best: Rule


def outcome(found):
    """Choose the rules.

    Args:
        found (MapResults): The runs of the map.

    Returns:
        dict: What ``map.json`` holds: both rules, and the numbers that they were chosen
        by.

    Raises:
        NotRun: If a run of normalBN at 64 is missing, or no rule has all its runs.
    """
    every = rule_paths.rules(found.scale)
    means = {rule: mean_accuracy(rule, found) for rule in every}
    complete = {rule: mean for rule, mean in means.items() if mean is not None}
    constant, accuracy = _constant(found)
    if not complete:
        raise NotRun("some of the runs of every rule")
    best = max(complete, key=complete.get)
    return {
        "program": "chainer_crossbn",
        "scale": found.scale.name,
        "runs": len(found.runs),
        "planned_runs": found.n_planned,
        "rules": len(complete),
        "planned_rules": len(every),
        "constant": {
            **_entry(constant),
            "test_accuracy": {_name(_BN, _BATCH): accuracy},
        },
        "best": {
            **_entry(best),
            "mean_test_accuracy": complete[best],
            "test_accuracy": {
                _name(*cell): _accuracy(*cell, best, found)
                for cell in found.scale.map.cells
            },
        },
    }


def conclude(found):
    """Choose the rules, and write ``map.json`` into the directory of the map.

    Args:
        found (MapResults): The runs of the map.

    Returns:
        dict: As :func:`outcome` returns it.

    Raises:
        NotRun: As :func:`outcome` does; then nothing is written.
    """
    chosen_by = outcome(found)
    write_json(Path(found.out, _FILE), chosen_by)
    return chosen_by


def chosen(out):
    """Return the rules that were chosen.

    Args:
        out (str): Directory that gathers all. Without a choice in it the one that
            comes with this package counts.

    Returns:
        ChosenRules: As :func:`conclude` has written them.

    Raises:
        UsageError: If they have not been chosen, or can't be read.
    """
    for path in (Path(out, _FILE), _COMMITTED):
        try:
            return of(json.loads(path.read_text()))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"can't read {path}: {error!r}; run --only map") from None
    raise UsageError(
        f"run --only map at laptop scale first: no {Path(out, _FILE)}, and no "
        f"{_COMMITTED}"
    )


def of(found):
    """Return the rules of an outcome.

    Args:
        found (dict): As :func:`outcome` returns it.

    Returns:
        ChosenRules: The two rules.
    """
    return ChosenRules(
        *(
            Rule(entry["init"], entry["base_rate"], entry["scaling"])
            for entry in (found["constant"], found["best"])
        )
    )


def in_words(found):
    """Return an outcome in two lines.

    Args:
        found (dict): As :func:`outcome` returns it.

    Returns:
        list of str: The constant rule and the best one, with their numbers.
    """
    constant, best = of(found)
    (accuracy,) = found["constant"]["test_accuracy"].values()
    mean, n = found["best"]["mean_test_accuracy"], found["rules"]
    of_all = "" if n == found["planned_rules"] else f" of {found['planned_rules']}"
    return [
        f"constant rule: {constant} (test accuracy of {networks.name(_BN)} at "
        f"{_BATCH}: {accuracy:.1%})",
        f"best rule: {best} (mean test accuracy of the "
        f"{len(found['best']['test_accuracy'])} networks: {mean:.1%}, the highest of "
        f"{n}{of_all} rules)",
    ]


def mean_accuracy(rule, found):
    """Return the mean of the final test accuracies of all networks under a rule.

    Args:
        rule (Rule): The rule.
        found (MapResults): The runs of the map.

    Returns:
        float or None: ``None`` where a run is missing.
    """
    accuracies = [_accuracy(*cell, rule, found) for cell in found.scale.map.cells]
    if None in accuracies:
        return None
    return round(math.fsum(accuracies) / len(accuracies), 6)


def _accuracy(bn, batch, rule, found):
    """Final test accuracy, the mean of two where the rate falls between two."""
    rates = rule_paths.path(rule, found.scale)[batch]
    runs = [found.run(bn, batch, rule.init, rate) for rate in rates]
    if None in runs:
        return None
    return round(math.fsum(run.final_accuracy for run in runs) / len(runs), 6)


def _constant(found):
    """Return the constant rule, and the accuracy that it was chosen by."""
    every = [r for r in rule_paths.rules(found.scale) if r.scaling == "constant"]
    accuracies = {rule: _accuracy(_BN, _BATCH, rule, found) for rule in every}
    missing = sum(accuracy is None for accuracy in accuracies.values())
    if missing:
        name = networks.name(_BN)
        raise NotRun(f"{missing} of {len(every)} runs of {name} at {_BATCH}")
    best = max(accuracies, key=accuracies.get)
    return best, accuracies[best]


def _entry(rule):
    return {
        "init": rule.init,
        "base_rate": rule.base_rate,
        "scaling": rule.scaling,
    }


def _name(bn, batch):
    return f"{bn}-b{batch}"
