"""The paper's claims, each with its criterion and how it is judged.

A claim has parts, each of which is true, false or undecided. It holds if all parts are
true, and does not hold if one is false. The first part that is false decides, else the
first that is undecided, else the first of all.

Accuracies of two networks are compared seed by seed. They are *alike* if the median of
the differences is below the margin, which is twice the standard error of a difference
of two accuracies, each measured on all test images: 2 * sqrt(0.5 / n). They *differ* if
it is not, and the difference has the same sign in all seeds; else it is undecided.
Claims 1 to 6 are undecided with fewer than three seeds, unless the results ask for
fewer.
"""

from typing import Callable, NamedTuple

import numpy as np

from chainer_crossbn.experiments import comparisons
from chainer_crossbn.experiments.comparisons import (
    Part,
    alike,
    differ,
    margin,
    more,
    spread,
)
from chainer_crossbn.experiments.definitions import NETWORKS, NORMALIZED, Setting
from chainer_crossbn.experiments.records import CHANCE
from chainer_crossbn.experiments.results import (
    Evaluation,
    NotRun,
    Results,
    deviations,
)
from chainer_crossbn.experiments.scaling import claim7
from chainer_crossbn.plotting import networks
from chainer_crossbn.plotting.papers import PAPER_SECONDS
from chainer_crossbn.runs.reading import TRAIN_ACCURACY, TRAIN_LOSS

HOLDS = "holds"
FAILS = "does not hold"
UNCLEAR = "can't be told at this scale"
NOT_RUN = "not run"

_NONE, _NORMAL, _MULTIGPU = (Setting(bn, 64) for bn in NETWORKS)
_NORMAL_2, _MULTIGPU_2 = Setting("normal", 2), Setting("multigpu", 2)
_NORMAL_4, _MULTIGPU_4 = Setting("normal", 4), Setting("multigpu", 4)
_TIMED = tuple(Setting(bn, 64, timed=True) for bn in (*NETWORKS, "paper"))

_RATIO = PAPER_SECONDS["multigpu"] / PAPER_SECONDS["normal"]
_RATIO_WITHIN = 0.1
_LEAST_GROWTH = 3


class Judgement(NamedTuple):
    """The verdict on a claim.

    Attributes:
        verdict (str): :data:`HOLDS`, :data:`FAILS` or :data:`UNCLEAR`.
        deciding (str): The number that decides, in a few words.
        numbers (tuple of str): All numbers, in sentences without a full stop.
    """

    verdict: str
    deciding: str
    numbers: tuple[str, ...]


class Claim(NamedTuple):
    """A claim of the paper.

    Attributes:
        number (str): As the report counts them.
        paper (str): What the paper says.
        criterion (str): When it holds.
        judge (callable): :class:`Results` -> :class:`Judgement`; may raise
            :class:`NotRun`.
        by_rule (bool): Whether it is judged under each rule for the learning rate. A
            claim about time is not.
    """

    number: str
    paper: str
    criterion: str
    judge: Callable[[Results], Judgement]
    by_rule: bool = True

    def judge_finished(self, results: Results) -> Judgement:
        """Judge the claim; where runs are missing, it is undecided."""
        try:
            return self.judge(results)
        except NotRun as missing:
            return Judgement(UNCLEAR, NOT_RUN, (f"{NOT_RUN}: {missing}",))


CLAIMS: list[Claim] = []


def judge_claims(evaluation: Evaluation) -> dict[Claim, dict[str, Judgement]]:
    """Judge all claims.

    Returns:
        dict: Claim -> name of a rule -> judgement. A claim that is not judged by rule
        has the first rule alone.
    """
    first = {evaluation.first_rule: evaluation.headline}
    return {
        claim: {
            rule: claim.judge_finished(results)
            for rule, results in (
                evaluation.results if claim.by_rule else first
            ).items()
        }
        for claim in CLAIMS
    }


def _claim(number, paper, criterion, by_rule=True):
    """Return a decorator that adds a claim, which the function judges."""

    def add(judge):
        CLAIMS.append(Claim(number, paper, criterion, judge, by_rule))
        return judge

    return add


@_claim(
    number="1a",
    paper="With BN training loss falls and accuracy rises at another rate than "
    "without: faster, as BN is found effective",
    criterion="In each seed, both networks with BN take fewer epochs than noBN to the "
    "training accuracy (and to the training loss) that both reach.",
)
def _faster(results):
    parts, numbers = [], []
    for setting in (_NORMAL, _MULTIGPU):
        pairs = results.paired(setting, _NONE)
        for key, what in ((TRAIN_ACCURACY, "accuracy"), (TRAIN_LOSS, "loss")):
            what = f"training {what}"
            part, ours, theirs = comparisons.sooner(results, pairs, key, quantity=what)
            parts.append(part)
            numbers.append(
                f"{comparisons.name(pairs[0][0])} takes {spread(ours, '.1f')} epochs "
                f"to the {what} that both reach, noBN {spread(theirs, '.1f')}"
            )
    return _judgement_by_seed(results, pairs, parts, numbers)


@_claim(
    number="1b",
    paper="With BN the final accuracy is higher, too",
    criterion="Test accuracy of normalBN and of multigpuBN is higher than that of "
    "noBN.",
)
def _better_in_the_end(results):
    parts, numbers = [], []
    for setting in (_NORMAL, _MULTIGPU):
        pairs = results.paired(setting, _NONE)
        its_parts, its_numbers = comparisons.under_each_reading(results, pairs, more)
        parts += its_parts
        numbers += its_numbers
    return _judgement_by_seed(results, pairs, parts, numbers)


@_claim(
    number="2",
    paper="At batch size 64 normalBN and multigpuBN do not differ in accuracy",
    criterion="Test accuracy is alike, under each reading of normalBN's running "
    "statistics, and so is training accuracy.",
)
def _alike_at_64(results):
    pairs = results.paired(_NORMAL, _MULTIGPU)
    return _in_test_and_training(results, pairs, in_test=alike, in_training=alike)


@_claim(
    number="3",
    paper="multigpuBN takes about 1.5 times as long as normalBN (1211 s to 804 s; "
    "noBN 748 s)",
    criterion="The ratio of total times of multigpuBN, as the paper writes it, and "
    f"normalBN is within {_RATIO_WITHIN:.0%} of {_RATIO:.3f} in the median over the "
    "seeds. The claim does not hold if all seeds are outside on the same side.",
    by_rule=False,
)
def _times(results):
    source = results.source(_TIMED)
    runs = source.paired(*_TIMED)
    total = [[run.total_time for run in row] for row in runs]
    training = [[run.train_time for run in row] for row in runs]
    part = _about_the_papers_ratio([row[3] / row[1] for row in total])
    names = (
        (3, "multigpuBN as the paper writes it"),
        (2, "this package's multigpuBN"),
        (0, "noBN"),
    )
    numbers = [
        f"{name} / normalBN {spread([row[i] / row[1] for row in total], '.2f')} in "
        f"total time, {spread([row[i] / row[1] for row in training], '.2f')} in "
        "training alone"
        for i, name in names
    ]
    now = _judgement_by_seed(results, runs, [part], numbers)
    ours = _about_the_papers_ratio([row[2] / row[1] for row in total])
    before = _judgement_by_seed(results, runs, [ours], ())
    numbers.append(
        "the criterion has changed, because the claim is about the paper's program: "
        "the old one, on this package's multigpuBN, gives the verdict "
        f"*{before.verdict}* ({before.deciding}); the new one, on multigpuBN as the "
        f"paper writes it, gives *{now.verdict}* ({now.deciding})"
    )
    if source is not results:
        numbers.append(f"the times are those of the {source.scale.name} scale")
    return _judgement_by_seed(results, runs, [part], numbers)


@_claim(
    number="4",
    paper="At batch size 2 normalBN does not learn well, multigpuBN learns properly",
    criterion="multigpuBN's accuracy is higher than normalBN's in training and, under "
    "each reading of normalBN's running statistics, in the test; and its training "
    "accuracy is above chance.",
)
def _multigpu_at_2(results):
    pairs = results.paired(_MULTIGPU_2, _NORMAL_2)
    ours = [run for run, _ in pairs]
    above_chance = comparisons.learns(results, ours, "training")
    return _in_test_and_training(
        results, pairs, in_test=more, in_training=more, others=[above_chance]
    )


@_claim(
    number="5",
    paper="multigpuBN at 2 and normalBN at 64 differ in training accuracy, and are "
    "about the same in test accuracy",
    criterion="Training accuracy differs, and test accuracy is alike, under each "
    "reading of normalBN's running statistics.",
)
def _training_differs_and_test_does_not(results):
    pairs = results.paired(_MULTIGPU_2, _NORMAL)
    return _in_test_and_training(results, pairs, in_test=alike, in_training=differ)


@_claim(
    number="6a",
    paper="At batch size 4 normalBN learns, but slower and less accurately than at a "
    "larger batch",
    criterion="normalBN's test accuracy at 4 is above chance, and lower than at 64, "
    "under each reading of its running statistics; and in each seed it takes more "
    "epochs to the training accuracy that both reach.",
)
def _normal_at_4(results):
    pairs = results.paired(_NORMAL, _NORMAL_4)
    parts, numbers = comparisons.under_each_reading(results, pairs, more)
    what = "training accuracy"
    part, large, small = comparisons.sooner(
        results, pairs, TRAIN_ACCURACY, quantity=what
    )
    at_4 = [run for _, run in pairs]
    parts += [part, comparisons.learns(results, at_4, "test")]
    numbers.append(
        f"to the {what} that both reach it takes {spread(small, '.1f')} epochs at 4, "
        f"{spread(large, '.1f')} at 64"
    )
    return _judgement_by_seed(results, pairs, parts, numbers)


@_claim(
    number="6b",
    paper="At batch size 4 multigpuBN learns more properly than normalBN",
    criterion="multigpuBN's test accuracy is higher, under each reading of normalBN's "
    "running statistics.",
)
def _multigpu_at_4(results):
    pairs = results.paired(_MULTIGPU_4, _NORMAL_4)
    parts, numbers = comparisons.under_each_reading(results, pairs, more)
    return _judgement_by_seed(results, pairs, parts, numbers)


@_claim(
    number="7",
    paper="The extra time of multigpuBN comes from the need to synchronize (a guess of "
    "the paper)",
    criterion="In a model of TSUBAME-KFC, not checked there: wherever the model gives "
    "both of the paper's ratios of times, transfer and waiting are more than half of "
    "the extra time. The claim does not hold if they are less wherever it does.",
    by_rule=False,
)
def _synchronization(results):
    if results.evaluation.scaling is None:
        raise NotRun("scaling")
    claim = results.evaluation.scaling["claim7"]
    if claim is None:
        return Judgement(UNCLEAR, "no all-reduce", ("no all-reduce was timed",))
    verdicts = {claim7.HOLDS: HOLDS, claim7.FAILS: FAILS, claim7.UNCLEAR: UNCLEAR}
    verdict = verdicts[claim["verdict"]]
    return Judgement(verdict, claim["deciding"], tuple(claim["found"]))


@_claim(
    number="8",
    paper="At small batches the local statistics do not normalise properly",
    criterion="In normalBN's runs, the distance of local from global means and "
    "variances, averaged over the layers, falls from each batch size to the next "
    f"larger one, and is at least {_LEAST_GROWTH} times as large at the smallest as at "
    "the largest.",
)
def _local_statistics(results):
    parts, numbers = [], []
    batches = results.scale.sweep
    for what in ("mean", "variance"):
        distances = []
        for batch in batches:
            runs = [run for (run,) in results.paired(Setting("normal", batch))]
            distances.append(np.median([_mean_deviation(run, what) for run in runs]))
        parts.append(_falling(what, batches, distances))
        shown = ", ".join(f"{v:.2f} at {batch}" for batch, v in zip(batches, distances))
        numbers.append(f"distance of the {what}s: {shown}")
    return _judgement(parts, numbers)


@_claim(
    number="9",
    paper="BN permits a higher learning rate",
    criterion="The highest learning rate whose test accuracy is within the margin of "
    "the network's best is higher for normalBN, and for multigpuBN, than for noBN.",
)
def _higher_learning_rate(results):
    by_runs = bool(results.scale.rates)
    source = results if by_runs else results.evaluation.map
    if source is None:
        raise NotRun("map")
    within = margin(source.n_test)
    usable, numbers, learn = {}, [], True
    unit = " times the standard rate" if by_runs else ""
    for bn in NETWORKS:
        accuracies = _by_multiple(bn, results) if by_runs else _in_map(bn, results)
        best = max(accuracies.values())
        learn = learn and best > CHANCE + within
        usable[bn] = max(rate for rate, a in accuracies.items() if a > best - within)
        numbers.append(
            f"{networks.name(bn)} up to {usable[bn]:g}{unit} "
            f"(best test accuracy {best:.1%})"
        )
    if not by_runs:
        numbers.append(
            f"rates and accuracies are those of the map, with {results.rule.init} "
            "initialization, at batch size 64"
        )
    top = max(accuracies)
    none, parts = f"{usable['none']:g} (noBN)", []
    for bn in NORMALIZED:
        # Where both reach the highest rate tried, either may tolerate more.
        both_top = usable[bn] == usable["none"] == top
        higher = None if both_top or not learn else usable[bn] > usable["none"]
        rate = f"{'' if by_runs else 'rates '}up to {usable[bn]:g}{unit}"
        parts.append(Part(higher, f"{rate} ({networks.name(bn)}) against {none}"))
    return _judgement(parts, numbers)


def _judgement_by_seed(results, pairs, parts, numbers):
    """Return the judgement of runs that are compared seed by seed."""
    least = results.least_seeds
    if len(pairs) < least:
        few = f"fewer than {least} seeds"
        return Judgement(UNCLEAR, few, (*numbers, few))
    return _judgement(parts, numbers)


def _judgement(parts, numbers):
    unclear = [part for part in parts if part.true is None]
    false = [part for part in parts if part.true is not None and not part.true]
    verdict = FAILS if false else UNCLEAR if unclear else HOLDS
    return Judgement(verdict, (false or unclear or parts)[0].number, tuple(numbers))


def _in_test_and_training(results, pairs, in_test, in_training, others=()):
    """Judge by test and training accuracy, and by other parts."""
    parts, numbers = comparisons.under_each_reading(results, pairs, in_test)
    part, line = comparisons.in_training(results, pairs, in_training)
    parts += [part, *others]
    return _judgement_by_seed(results, pairs, parts, [*numbers, line])


def _about_the_papers_ratio(ratios):
    """Return whether ratios of total times are about the paper's."""
    low, high = _RATIO * (1 - _RATIO_WITHIN), _RATIO * (1 + _RATIO_WITHIN)
    middle, true = np.median(ratios), None
    if low <= middle <= high:
        true = True
    elif max(ratios) < low or min(ratios) > high:
        true = False
    number = f"{middle:.2f} times normalBN's time, in the paper {_RATIO:.2f}"
    return Part(true, number)


def _mean_deviation(run, what):
    return float(np.mean([layer[what] for layer in deviations(run)]))


def _falling(what, batches, distances):
    """Return whether distances fall with the batch size, and far enough."""
    for a, b, small, large in zip(distances, distances[1:], batches, batches[1:]):
        if a <= b:
            number = f"distance of the {what}s {a:.3f} at {small}, {b:.3f} at {large}"
            return Part(False, number)
    number = (
        f"the {what}s are {distances[0] / distances[-1]:.1f} times as far from those "
        f"of all ranks at {batches[0]} as at {batches[-1]}"
    )
    return Part(bool(distances[0] >= _LEAST_GROWTH * distances[-1]), number)


def _by_multiple(bn, results):
    """Return the test accuracy at each multiple of the standard rate."""
    accuracies = {}
    for rate in results.scale.rates:
        runs = results.paired(Setting(bn, 64, rate=rate))
        accuracies[rate] = np.median([run.final_accuracy for (run,) in runs])
    return accuracies


def _in_map(bn, results):
    """Return the test accuracy at each rate of the map."""
    map_results, accuracies = results.evaluation.map, {}
    for rate in map_results.scale.map.rates:
        run = map_results.run(bn, 64, results.rule.init, rate)
        if run is None:
            raise NotRun(f"{networks.name(bn)} at 64 in the map")
        accuracies[rate] = run.final_accuracy
    return accuracies
