"""Choose initial weights and learning rate, jointly for all networks.

Each network is trained under each rule of a grid at the largest and the smallest batch
size. A rule's score is the mean over these of test accuracy after the last epoch,
relative to the best that the network reaches at that batch size under any rule: so a
rule wins that all networks get along with, and none has one of its own.
"""

import itertools
import json
import math
from pathlib import Path

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import jobs, records
from chainer_crossbn.experiments.definitions import Setting
from chainer_crossbn.experiments.rule import STANDARD, Rule
from chainer_crossbn.runs.files import write_json

NAME = "search"
TITLE = "Search of initialization and learning rate, before all others"
INITS = ("he", "lecun")
BASE_RATES = (0.005, 0.01, 0.02, 0.04)
SCALINGS = ("sqrt", "linear")

_FILE = "search.json"
_COMMITTED = Path(__file__).resolve().parents[2] / "reproduction" / "laptop" / _FILE


def planned(scale):
    """Return the runs of the search, each once; a run may belong to several rules.

    Args:
        scale (Scale): How large.

    Returns:
        list of Job: In the order in which they are to run.
    """
    return list(
        {job.name: job for rule in _rules() for job in _jobs(rule, scale)}.values()
    )


def conclude(scale, out):
    """Score the rules by the finished runs, and write the outcome.

    Args:
        scale (Scale): How large.
        out (str): Directory that gathers all; gets ``search.json``.

    Returns:
        Rule: The rule that wins; the first of the grid, where several do.
    """
    accuracies, best = {}, {}
    for job in planned(scale):
        accuracy = round(records.read(job, out).final_accuracy, 6)
        accuracies[job.name] = accuracy
        best[job.setting] = max(best.get(job.setting, 0), accuracy)
    scores = []
    for rule in _rules():
        found = {job.setting: accuracies[job.name] for job in _jobs(rule, scale)}
        relative = [found[setting] / (best[setting] or 1) for setting in found]
        scores.append(
            {
                "init": rule.init,
                "base_rate": rule.base_rate,
                "scaling": rule.scaling,
                "score": round(math.fsum(relative) / len(relative), 6),
                "test_accuracy": {jobs.words(s): found[s] for s in found},
            }
        )
    chosen = max(scores, key=lambda entry: entry["score"])
    write_json(
        Path(out, _FILE),
        {"program": "chainer_crossbn", "scale": scale.name, "rules": scores},
    )
    return _rule(chosen)


def read(out):
    """Return the outcome of a search.

    Args:
        out (str): Directory that gathers all. Without a search in it the one that
            comes with this package counts.

    Returns:
        dict or None: As :func:`conclude` writes it; ``None`` if there was no search.

    Raises:
        UsageError: If it can't be read.
    """
    for path in (Path(out, _FILE), _COMMITTED):
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"can't read {path}: {error}; search anew") from None
    return None


def chosen(out):
    """Return the rule that a search has chosen, or the standard one.

    Args:
        out (str): As for :func:`read`.
    """
    outcome = read(out)
    if outcome is None:
        return STANDARD
    return _rule(max(outcome["rules"], key=lambda entry: entry["score"]))


def _rule(entry):
    return Rule(entry["init"], entry["base_rate"], entry["scaling"])


def _rules():
    return [Rule(*values) for values in itertools.product(INITS, BASE_RATES, SCALINGS)]


def _jobs(rule, scale):
    return [
        jobs.of_search(Setting(bn, batch), scale, epochs, rule)
        for batch, networks, epochs in scale.search
        for bn in networks
    ]
