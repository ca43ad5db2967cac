"""The paper's claims, and by what each is judged.

A claim is made of parts that are true, false, or not to be told. It holds if all are
true, and does not if one is false. The first part that is false decides, else the first
that can't be told, else the first of all. Accuracies of two networks are compared seed
by seed. They are *alike* if the median of the differences is below the margin, which is
twice the standard error of a difference of two accuracies, each measured on all test
images: 2 * sqrt(0.5 / n). They *differ* if it is not, and all seeds have the same sign;
else it can't be told. Fewer than three seeds tell nothing of claims 1 to 6, unless the
results ask for fewer.
"""

from dataclasses import dataclass
from typing import Callable

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
from chainer_crossbn.experiments.definitions import Setting
from chainer_crossbn.experiments.records import CHANCE
from chainer_crossbn.experiments.results import LEAST_SEEDS, NotRun, deviations
from chainer_crossbn.experiments.scaling import claim7
from chainer_crossbn.plotting import networks
from chainer_crossbn.plotting.papers import PAPER_SECONDS
from chainer_crossbn.runs.reading import TRAIN_ACCURACY, TRAIN_LOSS

HOLDS = "holds"
FAILS = "does not hold"
UNCLEAR = "can't be told at this scale"
NOT_RUN = "not run"

_BNS = ("none", "normal", "multigpu")
_NONE, _NORMAL, _MULTIGPU = (Setting(bn, 64) for bn in _BNS)
_NORMAL_2, _MULTIGPU_2 = Setting("normal", 2), Setting("multigpu", 2)
_NORMAL_4, _MULTIGPU_4 = Setting("normal", 4), Setting("multigpu", 4)
_TIMED = tuple(Setting(bn, 64, timed=True) for bn in (*_BNS, "paper"))

_RATIO = PAPER_SECONDS["multigpu"] / PAPER_SECONDS["normal"]
_RATIO_WITHIN = 0.1
_LEAST_GROWTH = 3


@dataclass(frozen=True)
class Judgement:
    """What was found of a claim.

    Attributes:
        verdict (str): :data:`HOLDS`, :data:`FAILS` or :data:`UNCLEAR`.
        deciding (str): The number that decides, in a few words.
        found (tuple of str): All numbers, in sentences without a full stop.
    """

    verdict: str
    deciding: str
    found: tuple


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        number (str): As the report counts them.
        paper (str): What the paper says.
        criterion (str): When it holds.
        judge (callable): From :class:`Results` to :class:`Judgement`; may raise
            :class:`NotRun`.
        by_rule (bool): Whether it is judged under each rule for the learning rate. A
            claim about time is not.
    """

    number: str
    paper: str
    criterion: str
    judge: Callable
    by_rule: bool = True

    def judged(self, results):
        """Return the judgement; where runs are missing, that nothing can be told."""
        try:
            return self.judge(results)
        except NotRun as missing:
            return Judgement(UNCLEAR, NOT_RUN, (f"{NOT_RUN}: {missing}",))


def faster(results):
    """Claim 1, the rate."""
    parts, found = [], []
    for setting in (_NORMAL, _MULTIGPU):
        pairs = results.paired(setting, _NONE)
        for key, what in ((TRAIN_ACCURACY, "accuracy"), (TRAIN_LOSS, "loss")):
            what = f"training {what}"
            part, ours, theirs = comparisons.sooner(results, pairs, key, what)
            parts.append(part)
            found.append(
                f"{comparisons.name(pairs[0][0])} takes {spread(ours, '.1f')} epochs "
                f"to the {what} that both reach, noBN {spread(theirs, '.1f')}"
            )
    return _judgement(parts, found, len(pairs), results.least_seeds)


def better_in_the_end(results):
    """Claim 1, the end."""
    parts, found = [], []
    for setting in (_NORMAL, _MULTIGPU):
        pairs = results.paired(setting, _NONE)
        its_parts, its_found = comparisons.under_each_reading(results, pairs, more)
        parts += its_parts
        found += its_found
    return _judgement(parts, found, len(pairs), results.least_seeds)


def alike_at_64(results):
    """Claim 2."""
    pairs = results.paired(_NORMAL, _MULTIGPU)
    return _in_test_and_training(results, pairs, alike, alike)


def times(results):
    """Claim 3."""
    source = results.source(_TIMED)
    runs = source.paired(*_TIMED)
    total = [[run.total_time for run in row] for row in runs]
    training = [[run.train_time for run in row] for row in runs]
    part = _as_in_the_paper([row[3] / row[1] for row in total])
    names = (
        (3, "multigpuBN as the paper writes it"),
        (2, "this package's multigpuBN"),
        (0, "noBN"),
    )
    found = [
        f"{name} / normalBN {spread([row[i] / row[1] for row in total], '.2f')} in "
        f"total time, {spread([row[i] / row[1] for row in training], '.2f')} in "
        "training alone"
        for i, name in names
    ]
    now = _judgement([part], found, len(runs))
    ours = _as_in_the_paper([row[2] / row[1] for row in total])
    before = _judgement([ours], (), len(runs))
    found.append(
        "the criterion has changed, because the claim is about the paper's program: "
        "the old one, on this package's multigpuBN, gives the verdict "
        f"*{before.verdict}* ({before.deciding}); the new one, on multigpuBN as the "
        f"paper writes it, gives *{now.verdict}* ({now.deciding})"
    )
    if source is not results:
        found.append(f"the times are those of the {source.scale.name} scale")
    return _judgement([part], found, len(runs))


def multigpu_at_2(results):
    """Claim 4."""
    pairs = results.paired(_MULTIGPU_2, _NORMAL_2)
    ours = [run for run, _ in pairs]
    also = comparisons.learns(results, ours, "training")
    return _in_test_and_training(results, pairs, more, more, also)


def training_differs_and_test_does_not(results):
    """Claim 5."""
    pairs = results.paired(_MULTIGPU_2, _NORMAL)
    return _in_test_and_training(results, pairs, alike, differ)


def normal_at_4(results):
    """Claim 6, normalBN."""
    pairs = results.paired(_NORMAL, _NORMAL_4)
    parts, found = comparisons.under_each_reading(results, pairs, more)
    what = "training accuracy"
    part, large, small = comparisons.sooner(results, pairs, TRAIN_ACCURACY, what)
    at_4 = [run for _, run in pairs]
    parts += [part, comparisons.learns(results, at_4, "test")]
    found.append(
        f"to the {what} that both reach it takes {spread(small, '.1f')} epochs at 4, "
        f"{spread(large, '.1f')} at 64"
    )
    return _judgement(parts, found, len(pairs), results.least_seeds)


def multigpu_at_4(results):
    """Claim 6, multigpuBN."""
    pairs = results.paired(_MULTIGPU_4, _NORMAL_4)
    parts, found = comparisons.under_each_reading(results, pairs, more)
    return _judgement(parts, found, len(pairs), results.least_seeds)


def synchronizing(results):
    """Claim 7, by the model of an iteration's time."""
    if results.scaling is None:
        raise NotRun("scaling")
    claim = results.scaling["claim7"]
    if claim is None:
        return Judgement(UNCLEAR, "no all-reduce", ("no all-reduce was timed",))
    verdicts = {claim7.HOLDS: HOLDS, claim7.FAILS: FAILS, claim7.UNCLEAR: UNCLEAR}
    verdict = verdicts[claim["verdict"]]
    return Judgement(verdict, claim["deciding"], tuple(claim["found"]))


def local_statistics(results):
    """Claim 8."""
    parts, found = [], []
    batches = results.scale.sweep
    for what in ("mean", "variance"):
        far = []
        for batch in batches:
            runs = [run for (run,) in results.paired(Setting("normal", batch))]
            far.append(np.median([_mean_deviation(run, what) for run in runs]))
        parts.append(_falling(what, batches, far))
        shown = ", ".join(f"{v:.2f} at {batch}" for batch, v in zip(batches, far))
        found.append(f"distance of the {what}s: {shown}")
    return _judgement(parts, found)


def higher_rates(results):
    """Claim 9: by runs of its own, or by the map where the scale has none."""
    by_runs = bool(results.scale.rates)
    source = results if by_runs else results.map
    if source is None:
        raise NotRun("map")
    within = margin(source.n_test)
    usable, found, learn = {}, [], True
    unit = " times the standard rate" if by_runs else ""
    for bn in _BNS:
        accuracies = _by_multiple(bn, results) if by_runs else _in_map(bn, results)
        best = max(accuracies.values())
        learn = learn and best > CHANCE + within
        usable[bn] = max(rate for rate, a in accuracies.items() if a > best - within)
        found.append(
            f"{networks.name(bn)} up to {usable[bn]:g}{unit} "
            f"(best test accuracy {best:.1%})"
        )
    if not by_runs:
        found.append(
            f"rates and accuracies are those of the map, with {results.rule.init} "
            "initialization, at batch size 64"
        )
    top = max(accuracies)
    none, parts = f"{usable['none']:g} (noBN)", []
    for bn in ("normal", "multigpu"):
        # Where both use the highest rate tried, either may bear a higher one.
        both_top = usable[bn] == usable["none"] == top
        higher = None if both_top or not learn else usable[bn] > usable["none"]
        rate = f"{'' if by_runs else 'rates '}up to {usable[bn]:g}{unit}"
        parts.append(Part(higher, f"{rate} ({networks.name(bn)}) against {none}"))
    return _judgement(parts, found)


CLAIMS = (
    Claim(
        "1a",
        "With BN training loss falls and accuracy rises at another rate than without: "
        "faster, as BN is found effective",
        "In each seed both networks with BN come sooner, in epochs, to the training "
        "accuracy (and to the training loss) that both they and noBN reach.",
        faster,
    ),
    Claim(
        "1b",
        "With BN the end is better, too",
        "Test accuracy of normalBN and of multigpuBN is higher than that of noBN.",
        better_in_the_end,
    ),
    Claim(
        "2",
        "At batch size 64 normalBN and multigpuBN do not differ in accuracy",
        "Test accuracy is alike, under each reading of normalBN's running statistics, "
        "and so is training accuracy.",
        alike_at_64,
    ),
    Claim(
        "3",
        "multigpuBN takes about 1.5 times as long as normalBN (1211 s to 804 s; "
        "noBN 748 s)",
        "The ratio of total times of multigpuBN, as the paper writes it, and normalBN "
        f"is within {_RATIO_WITHIN:.0%} of {_RATIO:.3f} in the median over the seeds. "
        "It does not hold if all seeds are beyond on one side.",
        times,
        by_rule=False,
    ),
    Claim(
        "4",
        "At batch size 2 normalBN does not learn well, multigpuBN learns properly",
        "multigpuBN's accuracy is higher than normalBN's in training and, under each "
        "reading of normalBN's running statistics, in the test; and its training "
        "accuracy is above chance.",
        multigpu_at_2,
    ),
    Claim(
        "5",
        "multigpuBN at 2 and normalBN at 64 differ in training accuracy, and are about "
        "the same in test accuracy",
        "Training accuracy differs, and test accuracy is alike, under each reading of "
        "normalBN's running statistics.",
        training_differs_and_test_does_not,
    ),
    Claim(
        "6a",
        "At batch size 4 normalBN learns, but slower and less accurately than at a "
        "larger batch",
        "normalBN's test accuracy at 4 is above chance, and lower than at 64, under "
        "each reading of its running statistics; and in each seed it comes later, in "
        "epochs, to the training accuracy that both reach.",
        normal_at_4,
    ),
    Claim(
        "6b",
        "At batch size 4 multigpuBN learns more properly than normalBN",
        "multigpuBN's test accuracy is higher, under each reading of normalBN's "
        "running statistics.",
        multigpu_at_4,
    ),
    Claim(
        "7",
        "The extra time of multigpuBN comes from the need to synchronize (a guess of "
        "the paper)",
        "In a model of TSUBAME-KFC, not checked there: wherever both of the paper's "
        "ratios of times come out, more than half of the extra time is transfer and "
        "waiting. It does not hold if it is less wherever they do.",
        synchronizing,
        by_rule=False,
    ),
    Claim(
        "8",
        "At small batches the local statistics do not normalise properly",
        "In normalBN's runs the distance of local from global means and variances, "
        "averaged over the layers, falls from each batch size to the next larger one, "
        f"and is at the smallest at least {_LEAST_GROWTH} times that at the largest.",
        local_statistics,
    ),
    Claim(
        "9",
        "BN permits a higher learning rate",
        "The highest rate at which normalBN, and multigpuBN, come within the margin of "
        "their own best test accuracy is higher than noBN's.",
        higher_rates,
    ),
)


def _judgement(parts, found, n_seeds=LEAST_SEEDS, least_seeds=LEAST_SEEDS):
    if n_seeds < least_seeds:
        few = f"fewer than {least_seeds} seeds"
        return Judgement(UNCLEAR, few, (*found, few))
    unclear = [part for part in parts if part.true is None]
    false = [part for part in parts if part.true is not None and not part.true]
    verdict = FAILS if false else UNCLEAR if unclear else HOLDS
    return Judgement(verdict, (false or unclear or parts)[0].number, tuple(found))


def _in_test_and_training(results, pairs, of_test, of_training, *also):
    """Judge by test and training accuracy, and by further parts."""
    parts, found = comparisons.under_each_reading(results, pairs, of_test)
    part, line = comparisons.in_training(results, pairs, of_training)
    parts += [part, *also]
    return _judgement(parts, [*found, line], len(pairs), results.least_seeds)


def _as_in_the_paper(ratios):
    """Whether ratios of total times are about the paper's."""
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


def _falling(what, batches, far):
    """Whether distances fall with the batch size, and far enough."""
    for a, b, small, large in zip(far, far[1:], batches, batches[1:]):
        if a <= b:
            number = f"distance of the {what}s {a:.3f} at {small}, {b:.3f} at {large}"
            return Part(False, number)
    number = (
        f"the {what}s are {far[0] / far[-1]:.1f} times as far from those of all ranks "
        f"at {batches[0]} as at {batches[-1]}"
    )
    return Part(bool(far[0] >= _LEAST_GROWTH * far[-1]), number)


def _by_multiple(bn, results):
    """Return the test accuracy at each multiple of the standard rate."""
    accuracies = {}
    for rate in results.scale.rates:
        runs = results.paired(Setting(bn, 64, rate=rate))
        accuracies[rate] = np.median([run.final_accuracy for (run,) in runs])
    return accuracies


def _in_map(bn, results):
    """Return the test accuracy at each rate of the map."""
    init, accuracies = results.rule.init, {}
    for rate in results.map.scale.map.rates:
        run = results.map.run(bn, 64, init, rate)
        if run is None:
            raise NotRun(f"{networks.name(bn)} at 64 in the map")
        accuracies[rate] = run.final_accuracy
    return accuracies
