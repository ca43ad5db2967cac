"""The paper's claims, and by what each is judged.

A claim is made of parts that are true, false, or not to be told. It holds if all are
true, and does not if one is false. Accuracies of two networks are compared seed by
seed. They are *alike* if the median of the differences is below the margin, which is
twice the standard error of a difference of two accuracies, each measured on all test
images: 2 * sqrt(0.5 / n). They *differ* if it is not, and all seeds have the same sign;
else it can't be told. Fewer than three seeds tell nothing of claims 1 to 6, unless the
results ask for fewer.
"""

import math
from dataclasses import dataclass
from typing import Callable

import numpy as np

from chainer_crossbn.experiments.definitions import Setting
from chainer_crossbn.experiments.results import (
    LEAST_SEEDS,
    READINGS,
    NotRun,
    deviations,
    tested,
)
from chainer_crossbn.plotting import networks
from chainer_crossbn.plotting.papers import PAPER_SECONDS
from chainer_crossbn.plotting.runs import TRAIN_ACCURACY, TRAIN_LOSS
from chainer_crossbn.scaling import judging

HOLDS = "holds"
FAILS = "does not hold"
UNCLEAR = "can't be told at this scale"

_CHANCE = 0.1
_NONE, _NORMAL, _MULTIGPU = (Setting(bn, 64) for bn in ("none", "normal", "multigpu"))
_NORMAL_2, _MULTIGPU_2 = Setting("normal", 2), Setting("multigpu", 2)
_NORMAL_4, _MULTIGPU_4 = Setting("normal", 4), Setting("multigpu", 4)

_RATIO = PAPER_SECONDS["multigpu"] / PAPER_SECONDS["normal"]
_RATIO_WITHIN = 0.1
_LEAST_GROWTH = 3


@dataclass(frozen=True)
class Judgement:
    """What was found of a claim.

    Attributes:
        verdict (str): :data:`HOLDS`, :data:`FAILS` or :data:`UNCLEAR`.
        found (tuple of str): The numbers, in sentences without a full stop.
    """

    verdict: str
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
    """

    number: str
    paper: str
    criterion: str
    judge: Callable

    def judged(self, results):
        """Return the judgement; where runs are missing, that nothing can be told."""
        try:
            return self.judge(results)
        except NotRun as missing:
            return Judgement(UNCLEAR, (f"not run: {missing}",))


def margin(n_test):
    """Return the difference of accuracies from which on two networks differ.

    Args:
        n_test (int): Number of test images.
    """
    return 2 * math.sqrt(0.5 / n_test)


def faster(results):
    """Claim 1, the rate."""
    parts, found = [], []
    for setting in (_NORMAL, _MULTIGPU):
        pairs = results.paired(setting, _NONE)
        for key, what in ((TRAIN_ACCURACY, "accuracy"), (TRAIN_LOSS, "loss")):
            epochs = [_epochs_to_the_same(pair, key) for pair in pairs]
            parts.append(_sooner(epochs) if _both_learn(pairs, results) else None)
            ours, theirs = zip(*epochs)
            found.append(
                f"{_name(pairs[0][0])} takes {_range(ours, '.1f')} epochs to the "
                f"training {what} that both reach, noBN {_range(theirs, '.1f')}"
            )
    return _judgement(parts, found, len(pairs), results.least_seeds)


def better_in_the_end(results):
    """Claim 1, the end."""
    parts, found = [], []
    for setting in (_NORMAL, _MULTIGPU):
        pairs = results.paired(setting, _NONE)
        its_parts, its_found = _under_each_reading(results, pairs, _more)
        parts += its_parts
        found += its_found
    return _judgement(parts, found, len(pairs), results.least_seeds)


def alike_at_64(results):
    """Claim 2."""
    pairs = results.paired(_NORMAL, _MULTIGPU)
    training = _alike(_training(pairs), results)
    parts, found = _under_each_reading(results, pairs, _alike)
    found.append(_accuracies("training", pairs, _training(pairs)))
    parts.append(training)
    return _judgement(parts, found, len(pairs), results.least_seeds)


def times(results):
    """Claim 3."""
    bns = ("none", "normal", "multigpu", "paper")
    runs = results.paired(*(Setting(bn, 64, timed=True) for bn in bns))
    total = [[run.total_time for run in row] for row in runs]
    training = [[run.train_time for run in row] for row in runs]
    ratios = [row[3] / row[1] for row in total]
    low, high = _RATIO * (1 - _RATIO_WITHIN), _RATIO * (1 + _RATIO_WITHIN)
    part = None
    if low <= np.median(ratios) <= high:
        part = True
    elif max(ratios) < low or min(ratios) > high:
        part = False
    names = (
        (3, "multigpuBN as the paper writes it"),
        (2, "this package's multigpuBN"),
        (0, "noBN"),
    )
    found = [
        f"{name} / normalBN {_range([row[i] / row[1] for row in total], '.2f')} in "
        f"total time, {_range([row[i] / row[1] for row in training], '.2f')} in "
        "training alone"
        for i, name in names
    ]
    return _judgement([part], found, len(runs))


def multigpu_at_2(results):
    """Claim 4."""
    pairs = results.paired(_MULTIGPU_2, _NORMAL_2)
    training = _training(pairs)
    parts, found = _under_each_reading(results, pairs, _more)
    parts.append(_more(training, results))
    found.append(_accuracies("training", pairs, training))
    parts.append(min(ours for ours, _ in training) > _CHANCE + _margin(results))
    return _judgement(parts, found, len(pairs), results.least_seeds)


def training_differs_and_test_does_not(results):
    """Claim 5."""
    pairs = results.paired(_MULTIGPU_2, _NORMAL)
    parts, found = _under_each_reading(results, pairs, _alike)
    alike = _alike(_training(pairs), results)
    parts.append(None if alike is None else not alike)
    found.append(_accuracies("training", pairs, _training(pairs)))
    return _judgement(parts, found, len(pairs), results.least_seeds)


def normal_at_4(results):
    """Claim 6, normalBN."""
    pairs = results.paired(_NORMAL, _NORMAL_4)
    parts, found = _under_each_reading(results, pairs, _more)
    epochs = [_epochs_to_the_same(pair, TRAIN_ACCURACY) for pair in pairs]
    parts.append(_sooner(epochs) if _both_learn(pairs, results) else None)
    parts.append(_learns([small for _, small in pairs], results))
    large, small = zip(*epochs)
    found.append(
        f"to the training accuracy that both reach it takes {_range(small, '.1f')} "
        f"epochs at 4, {_range(large, '.1f')} at 64"
    )
    return _judgement(parts, found, len(pairs), results.least_seeds)


def multigpu_at_4(results):
    """Claim 6, multigpuBN."""
    pairs = results.paired(_MULTIGPU_4, _NORMAL_4)
    parts, found = _under_each_reading(results, pairs, _more)
    return _judgement(parts, found, len(pairs), results.least_seeds)


def synchronizing(results):
    """Claim 7, by the model of an iteration's time."""
    if results.scaling is None:
        raise NotRun("scaling")
    claim = results.scaling["claim7"]
    if claim is None:
        return Judgement(UNCLEAR, ("no all-reduce was timed",))
    verdicts = {judging.HOLDS: HOLDS, judging.FAILS: FAILS, judging.UNCLEAR: UNCLEAR}
    return Judgement(verdicts[claim["verdict"]], tuple(claim["found"]))


def local_statistics(results):
    """Claim 8."""
    parts, found = [], []
    for what in ("mean", "variance"):
        far = []
        for batch in results.scale.sweep:
            runs = [run for (run,) in results.paired(Setting("normal", batch))]
            far.append(np.median([_mean_deviation(run, what) for run in runs]))
        falls = all(a > b for a, b in zip(far, far[1:]))
        parts.append(bool(falls and far[0] >= _LEAST_GROWTH * far[-1]))
        shown = ", ".join(
            f"{value:.2f} at {batch}" for batch, value in zip(results.scale.sweep, far)
        )
        found.append(f"distance of the {what}s: {shown}")
    return _judgement(parts, found)


def higher_rates(results):
    """Claim 9."""
    usable, found, learn = {}, [], True
    for bn in ("none", "normal", "multigpu"):
        settings = [Setting(bn, 64, rate=rate) for rate in results.scale.rates]
        accuracies = [
            np.median([run.final_accuracy for (run,) in results.paired(setting)])
            for setting in settings
        ]
        best = max(accuracies)
        learn = learn and best > _CHANCE + _margin(results)
        usable[bn] = max(
            rate
            for rate, accuracy in zip(results.scale.rates, accuracies)
            if accuracy > best - _margin(results)
        )
        found.append(
            f"{networks.name(bn)} up to {usable[bn]:g} times the standard rate "
            f"(best test accuracy {best:.1%})"
        )
    top = max(results.scale.rates)
    parts = [
        # Where both use the highest rate tried, either may bear a higher one.
        None if usable[bn] == usable["none"] == top else usable[bn] > usable["none"]
        for bn in ("normal", "multigpu")
    ]
    return _judgement(parts if learn else [None], found)


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
        found = [*found, f"fewer than {least_seeds} seeds"]
        return Judgement(UNCLEAR, tuple(found))
    verdict = HOLDS
    if any(part is None for part in parts):
        verdict = UNCLEAR
    if any(part is not None and not part for part in parts):
        verdict = FAILS
    return Judgement(verdict, tuple(found))


def _under_each_reading(results, pairs, question):
    """Ask a question about test accuracy under each reading; return parts and lines."""
    of_normal = any(run.network == "normal" for run in pairs[0])
    parts, found = [], []
    for reading, words in READINGS.items() if of_normal else [("averaged", "")]:
        values = [tuple(tested(run, reading) for run in pair) for pair in pairs]
        parts.append(question(values, results))
        note = f" ({words})" if of_normal else ""
        found.append(_accuracies("test", pairs, values) + note)
    return parts, found


def _accuracies(kind, pairs, values):
    first, second = pairs[0]
    ours, theirs = zip(*values)
    return (
        f"{kind} accuracy of {_name(first)} at {first.batch} {_percent(ours)}, of "
        f"{_name(second)} at {second.batch} {_percent(theirs)}"
    )


def _training(pairs):
    return [tuple(run.columns[TRAIN_ACCURACY][-1] for run in pair) for pair in pairs]


def _alike(values, results):
    """Whether pairs of accuracies are alike; ``None`` where it can't be told."""
    differences = [a - b for a, b in values]
    if abs(np.median(differences)) < _margin(results):
        return True
    one_sided = min(differences) > 0 or max(differences) < 0
    return False if one_sided else None


def _more(values, results):
    """Whether the first accuracy of the pairs is higher; ``None`` if not to be told."""
    alike = _alike(values, results)
    if alike is None:
        return None
    return not alike and values[0][0] > values[0][1]


def _learns(runs, results):
    return min(run.final_accuracy for run in runs) > _CHANCE + _margin(results)


def _both_learn(pairs, results):
    """Whether all of the runs reach a training accuracy above chance."""
    return min(map(min, _training(pairs))) > _CHANCE + _margin(results)


def _epochs_to_the_same(pair, key):
    """Return the epochs that two runs take to the worse of their final values.

    They are NaN where one of these is no number.
    """
    final = [run.columns[key][-1] for run in pair]
    if np.isnan(final).any():
        return math.nan, math.nan
    level = max(final) if key == TRAIN_LOSS else min(final)
    return tuple(_epochs_to(run, key, level) for run in pair)


def _epochs_to(run, key, level):
    """Return the epochs to a level, between two by linear interpolation."""
    sign = -1 if key == TRAIN_LOSS else 1
    epochs, values = run.columns["epoch"], sign * run.columns[key]
    (reached,) = np.nonzero(values >= sign * level)
    first = reached[0]
    if first == 0:
        return float(epochs[0])
    low, high = values[first - 1], values[first]
    share = (sign * level - low) / (high - low)
    return float(epochs[first - 1] + share * (epochs[first] - epochs[first - 1]))


def _sooner(epochs):
    """Whether the first of the pairs is sooner in each seed; False if in none."""
    sooner = {ours < theirs for ours, theirs in epochs}
    if np.isnan(epochs).any() or len(sooner) > 1:
        return None
    return sooner.pop()


def _mean_deviation(run, what):
    return float(np.mean([layer[what] for layer in deviations(run)]))


def _margin(results):
    return margin(results.n_test)


def _name(run):
    return networks.name(run.network)


def _range(values, form):
    middle, low, high = np.median(values), min(values), max(values)
    text = format(middle, form)
    return text if len(values) == 1 else f"{text} ({low:{form}}–{high:{form}})"


def _percent(values):
    return f"{_range([100 * value for value in values], '.1f')} %"
