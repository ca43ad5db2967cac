"""Which of the paper's claims hold under which rule for the learning rate.

Each claim is judged by the criterion of :mod:`.claims`, on the runs that lie on the
path of the rule through the map. Where the rate of a rule falls between two of the map,
the claim is judged with each of them; if the verdicts differ, it is undecided.
"""

import itertools

from chainer_crossbn.experiments import claims, comparisons, records
from chainer_crossbn.experiments.claims import FAILS, HOLDS, NOT_RUN, Claim
from chainer_crossbn.experiments.jobs import setting_name
from chainer_crossbn.experiments.learning_rate_map import (
    LARGEST_BATCH,
    MapResults,
    grid_choices,
    grid_rates,
    rules_within,
)
from chainer_crossbn.experiments.results import NotRun
from chainer_crossbn.experiments.rules import Rule
from chainer_crossbn.runs.reading import TRAIN_ACCURACY

UNCLEAR = "can't be told"
NUMBERS = ("1a", "1b", "2", "4", "5", "6a", "6b")

_VERDICTS = {HOLDS: HOLDS, FAILS: FAILS, claims.UNCLEAR: UNCLEAR}

# Number of a claim -> verdict.
Verdicts = dict[str, str]


class _PathResults:
    """The runs of the map under one initialization, with one rate per batch size.

    It has what claims need of :class:`~chainer_crossbn.experiments.results.Results`.
    """

    least_seeds = 1

    def __init__(self, map_results, init, rates):
        self.n_test = map_results.n_test
        self._map = map_results
        self._init = init
        self._rates = rates

    def paired(self, *settings):
        return [tuple(self._run(setting) for setting in settings)]

    def _run(self, setting):
        rate = self._rates[setting.batch]
        run = self._map.run(setting.bn, setting.batch, self._init, rate)
        if run is None:
            raise NotRun(setting_name(setting))
        return run


def judge_rules(results: MapResults) -> dict[Rule, Verdicts]:
    """Judge the claims under each rule.

    Returns:
        dict: Rule -> number of a claim -> HOLDS, FAILS, :data:`UNCLEAR` or NOT_RUN.
    """
    judged = [claim for claim in claims.CLAIMS if claim.number in NUMBERS]
    return {
        rule: {claim.number: _verdict(claim, rule, results) for claim in judged}
        for rule in rules_within(results.scale)
    }


def with_verdict(judgements: dict[Rule, Verdicts]) -> dict[Rule, Verdicts]:
    """Return the judgements of the rules under which any claim could be judged."""
    return {
        rule: verdicts
        for rule, verdicts in judgements.items()
        if set(verdicts.values()) != {NOT_RUN}
    }


def holding(verdicts: Verdicts) -> list[str]:
    """Return the numbers of the claims that hold."""
    return [number for number, verdict in verdicts.items() if verdict == HOLDS]


def exclusive(judgements: dict[Rule, Verdicts]) -> list[tuple[str, str]]:
    """Return the pairs of claims that hold under some rule each, but never together."""
    together = [set(holding(verdicts)) for verdicts in judgements.values()]
    ever = set().union(*together)
    return [
        pair
        for pair in itertools.combinations(NUMBERS, 2)
        if ever.issuperset(pair) and not any(set(pair) <= held for held in together)
    ]


def best(judgements: dict[Rule, Verdicts]) -> tuple[int, list[Rule]]:
    """Return the highest number of claims that hold, and the rules that reach it."""
    counts = {rule: len(holding(verdicts)) for rule, verdicts in judgements.items()}
    most = max(counts.values(), default=0)
    return most, [rule for rule, count in counts.items() if count == most]


def alike_at_chance(
    results: MapResults, judgements: dict[Rule, Verdicts]
) -> list[Rule]:
    """Return the rules under which claim 2 holds, but neither network has learned.

    The training accuracy of both networks is then within the margin of chance.
    """
    return [
        rule
        for rule, verdicts in judgements.items()
        if verdicts["2"] == HOLDS and not _learns_at_64(rule, results)
    ]


def _learns_at_64(rule: Rule, results: MapResults) -> bool:
    (rate,) = grid_rates(rule, results.scale)[LARGEST_BATCH]
    runs = [
        results.run(bn, LARGEST_BATCH, rule.init, rate) for bn in ("normal", "multigpu")
    ]
    reached = max(run.columns[TRAIN_ACCURACY][-1] for run in runs)
    return reached > records.CHANCE + comparisons.margin(results.n_test)


def _verdict(claim: Claim, rule: Rule, results: MapResults) -> str:
    try:
        verdicts = {
            claim.judge(_PathResults(results, rule.init, rates)).verdict
            for rates in grid_choices(rule, results.scale)
        }
    except NotRun:
        return NOT_RUN
    return _VERDICTS[verdicts.pop()] if len(verdicts) == 1 else UNCLEAR
