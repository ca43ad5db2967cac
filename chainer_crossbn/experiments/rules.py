"""Rules for initial weights and learning rate, and which rules a scale runs under.

A rule serves all networks and batch sizes. The search chooses one, and the map of
learning rates chooses two; both write their choice into the directory of the runs. The
choices at laptop scale come with the repository, and serve where there is no other.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.definitions import Scale
from chainer_crossbn.runs.learning_rate import (
    DEFAULT_BASE_RATE,
    DEFAULT_SCALING,
    REFERENCE_GLOBAL_BATCH,
    scaled_rate,
)

COMMITTED = Path(__file__).resolve().parents[2] / "reproduction" / "laptop"


@dataclass(frozen=True)
class Rule:
    """Gives each run its initial weights and its learning rate.

    Attributes:
        init (str): Value of ``--init``.
        base_rate (float): Learning rate at a global batch of 512 images.
        scaling (str): How it scales with the global batch: a name of
            :data:`~chainer_crossbn.runs.learning_rate.SCALINGS`.
    """

    init: str
    base_rate: float
    scaling: str

    def rate(self, global_batch: int) -> float:
        """Return the learning rate at a global batch size, to 4 digits."""
        rate = scaled_rate(self.base_rate, global_batch, self.scaling)
        return float(f"{rate:.4g}")

    def __str__(self):
        start = f"{self.init} initialization, learning rate {self.base_rate:g}"
        if self.scaling == "constant":
            return f"{start} at every batch size"
        how = {"sqrt": "with the square root of", "linear": "in proportion to"}
        return (
            f"{start} at a global batch of {REFERENCE_GLOBAL_BATCH}, scaled "
            f"{how[self.scaling]} the batch size"
        )


# The defaults of train_cifar.py, until a search has chosen.
STANDARD = Rule("he", DEFAULT_BASE_RATE, DEFAULT_SCALING)


def rules_of(scale: Scale, out: str) -> dict[str, Rule]:
    """Return the rules that a scale runs under.

    Returns:
        dict: Name -> rule. It is the one that the search has chosen; or the constant
        and the best one of the map, of which equal ones count once. Timed runs use the
        first rule.

    Raises:
        UsageError: If they have not been chosen, or can't be read.
    """
    if scale.search:
        return {"searched": searched_rule(out)}
    constant, best = mapped_rules(out)
    if constant == best:
        return {"constant": constant}
    return {"constant": constant, "best": best}


def searched_rule(out: str) -> Rule:
    """Return the rule that a search has chosen, or the standard one.

    Raises:
        UsageError: If the choice can't be read.
    """
    choice = read_choice(out, "search")
    if choice is None:
        return STANDARD
    return rule_of(max(choice["rules"], key=lambda entry: entry["score"]))


def mapped_rules(out: str) -> tuple[Rule, Rule]:
    """Return the constant and the best rule, which a map has chosen.

    Raises:
        UsageError: If they have not been chosen, or can't be read.
    """
    choice = read_choice(out, "map")
    if choice is None:
        raise UsageError(
            f"run --only map at laptop scale first: no {Path(out, 'map.json')}, and no "
            f"{COMMITTED / 'map.json'}"
        )
    try:
        return rule_of(choice["constant"]), rule_of(choice["best"])
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"can't read the rules in map.json: {error!r}; run --only map again"
        ) from None


def read_choice(out: str, name: str) -> Optional[dict[str, Any]]:
    """Read what a search or a map has chosen.

    Args:
        out (str): Directory that contains the runs.
        name (str): ``"search"`` or ``"map"``.

    Returns:
        dict or None: The content of ``search.json`` or ``map.json`` in ``out``, or else
        of the one that comes with the repository; ``None`` if there is neither.

    Raises:
        UsageError: If it can't be read.
    """
    for path in (Path(out, f"{name}.json"), COMMITTED / f"{name}.json"):
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UsageError(
                f"can't read {path}: {error}; run --only {name} again"
            ) from None
    return None


def rule_of(entry: dict[str, Any]) -> Rule:
    """Return the rule of an entry of ``search.json`` or ``map.json``."""
    return Rule(entry["init"], entry["base_rate"], entry["scaling"])
