"""Rules for the learning rate as paths through the map's grid of learning rates."""

import itertools
import math

from chainer_crossbn.experiments.rule import POWERS, REFERENCE_GLOBAL_BATCH, Rule

LARGEST_BATCH = 64  # per rank; a rule's row in tables has its rate at this one
# Rules round to 4 digits, and the rates of a grid are a factor of 2 apart.
_TOLERANCE = 1e-3


def rules(scale):
    """Return the rules whose rates all lie within the grid.

    Args:
        scale (Scale): How large the map is.

    Returns:
        list of Rule: By initialization, scaling and rate; the rate at
        :data:`LARGEST_BATCH` is one of the grid's.
    """
    share = REFERENCE_GLOBAL_BATCH / (LARGEST_BATCH * scale.ranks)
    every = [
        Rule(init, rate * share**power, scaling)
        for init in scale.map.inits
        for scaling, power in POWERS.items()
        for rate in scale.map.rates
    ]
    return [rule for rule in every if all(path(rule, scale).values())]


def path(rule, scale):
    """Return the grid's rates that a rule takes.

    Args:
        rule (Rule): The rule.
        scale (Scale): How large the map is.

    Returns:
        dict: From batch size per rank to a tuple: the rate; or, where the rule's rate
        falls between two of the grid, both of these; empty where it lies beyond.
    """
    batches = dict.fromkeys(batch for _, batch in scale.map.cells)
    return {
        batch: _neighbours(rule.rate(batch * scale.ranks), scale.map.rates)
        for batch in batches
    }


def ways(rule, scale):
    """Return every choice among the neighbours on a rule's path.

    Args:
        rule (Rule): The rule.
        scale (Scale): How large the map is.

    Returns:
        list of dict: From batch size per rank to a rate of the grid.
    """
    taken = path(rule, scale)
    return [dict(zip(taken, rates)) for rates in itertools.product(*taken.values())]


def _neighbours(rate, grid):
    same = tuple(r for r in grid if math.isclose(r, rate, rel_tol=_TOLERANCE))
    below, above = [r for r in grid if r < rate], [r for r in grid if r > rate]
    if same or not (below and above):
        return same
    return max(below), min(above)
