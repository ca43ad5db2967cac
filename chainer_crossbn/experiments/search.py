"""Choose initial weights and learning rate, jointly for all networks.

Each network is trained under each rule of a grid, at the largest and the smallest batch
size. The score of a rule is the mean, over networks and batch sizes, of the test
accuracy after the last epoch, relative to the best that the network reaches there under
any rule. So the rule that wins suits all networks, and none has a rule of its own.
"""

import itertools
import math
from dataclasses import asdict
from pathlib import Path

from chainer_crossbn.experiments import jobs, records
from chainer_crossbn.experiments.definitions import Scale, Setting
from chainer_crossbn.experiments.jobs import Job
from chainer_crossbn.experiments.rules import Rule, searched_rule
from chainer_crossbn.runs.files import write_json

NAME = "search"
TITLE = "Search of initialization and learning rate, before all others"
INITS = ("he", "lecun")
BASE_RATES = (0.005, 0.01, 0.02, 0.04)
SCALINGS = ("sqrt", "linear")

_RULES = [Rule(*values) for values in itertools.product(INITS, BASE_RATES, SCALINGS)]


def planned(scale: Scale) -> list[Job]:
    """Return the runs of the search, in order; a run may belong to several rules."""
    plan = {job.name: job for rule in _RULES for job in _jobs(rule, scale)}
    return list(plan.values())


def conclude(scale: Scale, out: str) -> Rule:
    """Score the rules by the finished runs, and write ``search.json``.

    Args:
        scale (Scale): The scale of the runs.
        out (str): Directory that contains them, and gets ``search.json``.

    Returns:
        Rule: The rule with the highest score; the first of the grid, where several
        have it.
    """
    accuracies, best = {}, {}
    for job in planned(scale):
        accuracy = round(records.read(job, out).final_accuracy, 6)
        accuracies[job.name] = accuracy
        best[job.setting] = max(best.get(job.setting, 0), accuracy)
    scores = []
    for rule in _RULES:
        reached = {job.setting: accuracies[job.name] for job in _jobs(rule, scale)}
        relative = [reached[setting] / (best[setting] or 1) for setting in reached]
        scores.append(
            {
                **asdict(rule),
                "score": round(math.fsum(relative) / len(relative), 6),
                "test_accuracy": {jobs.setting_name(s): reached[s] for s in reached},
            }
        )
    write_json(
        Path(out, f"{NAME}.json"),
        {"program": "chainer_crossbn", "scale": scale.name, "rules": scores},
    )
    return searched_rule(out)


def _jobs(rule, scale):
    return [
        jobs.search_job(Setting(bn, batch), scale, epochs, rule)
        for batch, networks, epochs in scale.search
        for bn in networks
    ]
