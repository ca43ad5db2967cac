"""The rules for initialization and learning rate that a scale is run under."""

from chainer_crossbn.experiments import chosen_rules, search


def of(scale, out):
    """Return the rules of a scale.

    Args:
        scale (Scale): The scale.
        out (str): Directory that gathers its runs.

    Returns:
        dict: From a name to a :class:`~chainer_crossbn.experiments.rule.Rule`: the one
        that the search has chosen, or the constant and the best one of the map, of
        which equal ones count once. Runs whose times count are made under the first.

    Raises:
        UsageError: If they have not been chosen, or can't be read.
    """
    if scale.rules_from == "search":
        return {"searched": search.chosen(out)}
    constant, best = chosen_rules.chosen(out)
    if constant == best:
        return {"constant": constant}
    return {"constant": constant, "best": best}
