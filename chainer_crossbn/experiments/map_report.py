"""The report's section on the map of learning rates, in Markdown."""

from chainer_crossbn.experiments import (
    comparisons,
    map_choice,
    rules_by_claims,
)
from chainer_crossbn.experiments.claims import FAILS, HOLDS
from chainer_crossbn.experiments.learning_rate_map import (
    LARGEST_BATCH,
    MapResults,
    has_diverged,
)
from chainer_crossbn.experiments.results import NotRun
from chainer_crossbn.experiments.rules_by_claims import NOT_RUN, NUMBERS, UNCLEAR
from chainer_crossbn.plotting import networks, style
from chainer_crossbn.text_tables import markdown

_SHORT = {HOLDS: "**yes**", FAILS: "no", UNCLEAR: "?", NOT_RUN: "–"}
_KEY = (
    "Cells say whether the claim holds; ?: can't be told; –: not run. The rate is "
    f"that at batch size {LARGEST_BATCH}. The mean is that of the final test "
    "accuracies of all networks."
)
_CRITERION = (
    "Larger runs have two rules, chosen without regard to the claims. The *constant "
    "rule* has the initialization and the rate at which normalBN at 64 has its best "
    "test accuracy, and this rate at every batch size. The *best rule* is the one "
    "under which the mean of the final test accuracies of all networks is highest; "
    "where its rate falls between two of the map, the mean of both counts."
)


def section(results: MapResults, paths: dict[str, str]) -> str:
    """Return the section.

    Args:
        results (MapResults): The runs of the map.
        paths (dict): Name of a figure -> its path.

    Returns:
        str: From the heading to an empty line; empty where the map has no run.
    """
    if not results.runs:
        return ""
    judgements = rules_by_claims.judge_rules(results)
    titles = {
        f"map-{init}": f"Accuracy against learning rate, {init} initialization"
        for init in results.scale.map.inits
    }
    parts = ["## The map of learning rates", _runs(results)]
    parts += [f"![{titles[name]}]({paths[name]})" for name in titles if name in paths]
    parts.append(_judging(results))
    judged = rules_by_claims.with_verdict(judgements)
    if judged:
        parts += [
            f"![Claims by rules]({paths['rules']})",
            _KEY,
            _table(results, judged),
        ]
        parts.append(" ".join(_sentences(results, judgements)))
    return "\n\n".join([*parts, _CRITERION, _chosen(results)]) + "\n\n"


def _runs(results):
    size, run = results.scale.map, results.runs[0]
    cells = [f"{networks.name(bn)} at {batch}" for bn, batch in size.cells]
    diverged = sum(map(has_diverged, results.runs))
    note = f"; {diverged} have diverged, which counts as chance level"
    return (
        f"The map has {len(cells)} networks ({', '.join(cells)}), {len(size.rates)} "
        f"learning rates from {size.rates[0]:g} to {size.rates[-1]:g}, and the "
        f"initializations {' and '.join(size.inits)}. A run has one seed, "
        f"{run.dataset['train']:,} training and {run.dataset['test']:,} test images, "
        f"and {style.setting('epoch', size.epochs)}. {len(results.runs)} of "
        f"{results.n_planned} runs are there{note if diverged else ''}."
    )


def _judging(results):
    margin = 100 * comparisons.margin(results.n_test)
    return (
        "A rule for the learning rate is a path through the map. The claims are judged "
        "under each rule by the criteria above, but with one seed, and a margin of "
        f"{margin:.1f} points. Where the rate of a rule falls between two of the map, "
        "a claim is judged with each; if the verdicts differ, it can't be told."
    )


def _table(results, judgements):
    lines = []
    for rule, verdicts in judgements.items():
        mean = map_choice.mean_accuracy(rule, results)
        lines.append(
            (
                rule.init,
                rule.scaling,
                f"{rule.base_rate:g}",
                *(_SHORT[verdicts[number]] for number in NUMBERS),
                len(rules_by_claims.holding(verdicts)),
                "–" if mean is None else f"{100 * mean:.1f}",
            )
        )
    counts = [
        sum(verdicts[number] == HOLDS for verdicts in judgements.values())
        for number in NUMBERS
    ]
    lines.append(("rules under which it holds", "", "", *counts, "", ""))
    head = ("init", "scaling", "rate", *NUMBERS, "hold", "mean [%]")
    return markdown(head, lines)


def _sentences(results, judgements):
    """Yield sentences that sum up the table."""
    full = sum(NOT_RUN not in verdicts.values() for verdicts in judgements.values())
    yield f"Rules judged by all {len(NUMBERS)} claims: {full} of {len(judgements)}."
    held = {n for v in judgements.values() for n in rules_by_claims.holding(v)}
    never = [number for number in NUMBERS if number not in held]
    if never:
        yield f"Claims that hold under no rule: {', '.join(never)}."
    pairs = [f"{a} and {b}" for a, b in rules_by_claims.exclusive(judgements)]
    if pairs:
        yield (
            "Pairs of claims that exclude each other (each holds under some rule, both "
            f"under none): {'; '.join(pairs)}."
        )
    elif len(held) > 1:
        yield "No two of the claims that hold under some rule exclude each other."
    most, rules = rules_by_claims.best(judgements)
    if most:
        named = "; ".join(f"{r.init}, {r.scaling}, {r.base_rate:g}" for r in rules)
        yield f"Most claims hold, {most} of {len(NUMBERS)}, under: {named}."
    trivial = len(rules_by_claims.alike_at_chance(results, judgements))
    if trivial:
        total = sum(verdicts["2"] == HOLDS for verdicts in judgements.values())
        yield (
            f"Claim 2 holds under {total} of the rules; under {trivial} of these "
            "neither network is above chance in training."
        )


def _chosen(results):
    try:
        choice = map_choice.choose(results)
    except NotRun as missing:
        return f"They are not chosen yet; not run: {missing}."
    return "\n".join(f"- {line}" for line in map_choice.describe(choice))
