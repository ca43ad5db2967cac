"""Which of the paper's claims hold under which rule for the learning rate.

Each claim is judged by the criterion of :mod:`.claims`, on the runs that lie on the
rule's path through the map. Where a rule's rate falls between two of the map, the claim
is judged with each of them; if the verdicts differ, it can't be told.
"""

import itertools

from chainer_crossbn.experiments import claims, comparisons, jobs, records, rule_paths
from chainer_crossbn.experiments.claims import FAILS, HOLDS, NOT_RUN
from chainer_crossbn.experiments.results import NotRun
from chainer_crossbn.runs.reading import TRAIN_ACCURACY

UNCLEAR = "can't be told"
NUMBERS = ("1a", "1b", "2", "4", "5", "6a", "6b")
VERDICTS = (HOLDS, FAILS, UNCLEAR, NOT_RUN)

_WORDS = {HOLDS: HOLDS, FAILS: FAILS, claims.UNCLEAR: UNCLEAR}


class _Results:
    """The runs of the map under one initialization, with one rate for a batch size.

    It takes the place of :class:`~chainer_crossbn.experiments.results.Results`.
    """

    least_seeds = 1

    def __init__(self, found, init, rates):
        self.n_test = found.n_test
        self._found = found
        self._init = init
        self._rates = rates

    def paired(self, *settings):
        return [tuple(self._run(setting) for setting in settings)]

    def _run(self, setting):
        rate = self._rates[setting.batch]
        run = self._found.run(setting.bn, setting.batch, self._init, rate)
        if run is None:
            raise NotRun(jobs.words(setting))
        return run


def judged(found):
    """Judge the claims under each rule.

    Args:
        found (MapResults): The runs of the map; there is at least one.

    Returns:
        dict: From :class:`~chainer_crossbn.experiments.rule.Rule` to a dict from the
        number of a claim to one of :data:`VERDICTS`.
    """
    asked = [claim for claim in claims.CLAIMS if claim.number in NUMBERS]
    return {
        rule: {claim.number: _verdict(claim, rule, found) for claim in asked}
        for rule in rule_paths.rules(found.scale)
    }


def shown(judgements):
    """Return the judgements of those rules under which some claim was judged.

    Args:
        judgements (dict): As :func:`judged` returns it.

    Returns:
        dict: Likewise.
    """
    return {
        rule: verdicts
        for rule, verdicts in judgements.items()
        if set(verdicts.values()) != {NOT_RUN}
    }


def holding(verdicts):
    """Return the claims that hold under a rule.

    Args:
        verdicts (dict): From the number of a claim to a verdict.

    Returns:
        list of str: Their numbers.
    """
    return [number for number, verdict in verdicts.items() if verdict == HOLDS]


def exclusive(judgements):
    """Return the claims that hold under some rule each, and under none together.

    Args:
        judgements (dict): As :func:`judged` returns it.

    Returns:
        list of tuple: Pairs of claims' numbers.
    """
    together = [set(holding(verdicts)) for verdicts in judgements.values()]
    seen = set().union(*together)
    return [
        pair
        for pair in itertools.combinations(NUMBERS, 2)
        if seen.issuperset(pair) and not any(set(pair) <= held for held in together)
    ]


def best(judgements):
    """Return the rules under which most claims hold.

    Args:
        judgements (dict): As :func:`judged` returns it.

    Returns:
        tuple: The number of claims, and a list of rules.
    """
    counts = {rule: len(holding(verdicts)) for rule, verdicts in judgements.items()}
    most = max(counts.values(), default=0)
    return most, [rule for rule, count in counts.items() if count == most]


def alike_at_chance(found, judgements):
    """Return the rules under which claim 2 holds though neither network has learned.

    Args:
        found (MapResults): The runs of the map.
        judgements (dict): As :func:`judged` returns it.

    Returns:
        list of Rule: Training accuracy of both is within the margin of chance.
    """
    return [
        rule
        for rule, verdicts in judgements.items()
        if verdicts["2"] == HOLDS and not _learns_at_64(rule, found)
    ]


def _learns_at_64(rule, found):
    batch = rule_paths.LARGEST_BATCH
    (rate,) = rule_paths.path(rule, found.scale)[batch]
    runs = [found.run(bn, batch, rule.init, rate) for bn in ("normal", "multigpu")]
    reached = max(run.columns[TRAIN_ACCURACY][-1] for run in runs)
    return reached > records.CHANCE + comparisons.margin(found.n_test)


def _verdict(claim, rule, found):
    try:
        verdicts = {
            claim.judge(_Results(found, rule.init, rates)).verdict
            for rates in rule_paths.ways(rule, found.scale)
        }
    except NotRun:
        return NOT_RUN
    return _WORDS[verdicts.pop()] if len(verdicts) == 1 else UNCLEAR
