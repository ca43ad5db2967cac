"""Comparisons of runs, seed by seed, of which the verdicts on the claims are made."""

import math
from typing import NamedTuple, Optional

import numpy as np

from chainer_crossbn.experiments.records import CHANCE
from chainer_crossbn.experiments.results import READINGS, tested
from chainer_crossbn.plotting import networks
from chainer_crossbn.runs.reading import TRAIN_ACCURACY, TRAIN_LOSS


class Part(NamedTuple):
    """A part of a claim.

    Attributes:
        true (bool or None): Whether it is true; ``None`` if it can't be told.
        number (str): The number that tells, in a few words.
    """

    true: Optional[bool]
    number: str


def margin(n_test):
    """Return the difference of accuracies from which on two networks differ.

    Args:
        n_test (int): Number of test images.
    """
    return 2 * math.sqrt(0.5 / n_test)


def under_each_reading(results, pairs, question):
    """Ask a question about test accuracy, under each reading of running statistics.

    Args:
        results (Results): The finished runs.
        pairs (list of tuple): Two runs a seed.
        question (callable): :func:`alike` or :func:`more`.

    Returns:
        tuple: A list of :class:`Part`, and a list of lines with all numbers.
    """
    of_normal = any(run.network == "normal" for run in pairs[0])
    parts, found = [], []
    for reading, words in READINGS.items() if of_normal else [("averaged", "")]:
        values = [tuple(tested(run, reading) for run in pair) for pair in pairs]
        kind = "test" if reading == "averaged" else f"test ({words})"
        parts.append(_part("test", kind, pairs, values, question, results))
        note = f" ({words})" if of_normal else ""
        found.append(_accuracies("test", pairs, values) + note)
    return parts, found


def in_training(results, pairs, question):
    """Ask a question about training accuracy.

    Args:
        results (Results): The finished runs.
        pairs (list of tuple): Two runs a seed.
        question (callable): As for :func:`under_each_reading`, or :func:`differ`.

    Returns:
        tuple: A :class:`Part`, and a line with all numbers.
    """
    values = _training(pairs)
    part = _part("training", "training", pairs, values, question, results)
    return part, _accuracies("training", pairs, values)


def alike(values, results):
    """Tell whether pairs of accuracies are alike.

    Args:
        values (list of tuple): Two accuracies a seed.
        results (Results): The finished runs.

    Returns:
        bool or None: ``None`` where it can't be told.
    """
    differences = [a - b for a, b in values]
    if abs(np.median(differences)) < margin(results.n_test):
        return True
    one_sided = min(differences) > 0 or max(differences) < 0
    return False if one_sided else None


def differ(values, results):
    """Tell whether pairs of accuracies differ; as :func:`alike`."""
    are_alike = alike(values, results)
    return None if are_alike is None else not are_alike


def more(values, results):
    """Tell whether the first accuracy of the pairs is higher; as :func:`alike`."""
    are_alike = alike(values, results)
    if are_alike is None:
        return None
    return not are_alike and values[0][0] > values[0][1]


def sooner(results, pairs, key, what):
    """Ask whether the first runs come sooner to what both reach, in epochs.

    Args:
        results (Results): The finished runs.
        pairs (list of tuple): Two runs a seed.
        key (str): Column of the log.
        what (str): What that column has, in words.

    Returns:
        tuple: A :class:`Part`, and the epochs of the first and of the second runs.
    """
    epochs = [_epochs_to_the_same(pair, key) for pair in pairs]
    both_learn = min(map(min, _training(pairs))) > CHANCE + margin(results.n_test)
    ours, theirs = zip(*epochs)
    number = (
        f"{np.median(ours):.1f} epochs ({_label(pairs, 0)}) against "
        f"{np.median(theirs):.1f} ({_label(pairs, 1)}) to the same {what}"
    )
    return Part(_all_sooner(epochs) if both_learn else None, number), ours, theirs


def learns(results, runs, kind):
    """Ask whether all of some runs end above chance.

    Args:
        results (Results): The finished runs.
        runs (list of Run): One a seed.
        kind (str): ``"training"`` or ``"test"``.

    Returns:
        Part: Whether the lowest accuracy is.
    """
    accuracies = [
        run.final_accuracy if kind == "test" else run.columns[TRAIN_ACCURACY][-1]
        for run in runs
    ]
    true = min(accuracies) > CHANCE + margin(results.n_test)
    return Part(
        true,
        f"{name(runs[0])} {100 * min(accuracies):.1f} % in {_in(kind)}, chance "
        f"{CHANCE:.0%}",
    )


def name(run):
    """Return the paper's name of the network of a run."""
    return networks.name(run.network)


def spread(values, form):
    """Return the median and, of several values, their range.

    Args:
        values (iterable of float): One a seed.
        form (str): A format.
    """
    middle, low, high = np.median(values), min(values), max(values)
    text = format(middle, form)
    return text if len(values) == 1 else f"{text} ({low:{form}}–{high:{form}})"


def _part(kind, words, pairs, values, question, results):
    ours, theirs = (100 * np.median(column) for column in zip(*values))
    difference = 100 * np.median([a - b for a, b in values])
    number = (
        f"{ours:.1f} % ({_label(pairs, 0)}) against {theirs:.1f} % "
        f"({_label(pairs, 1)}) in {_in(words)}; difference {difference:+.1f}, margin "
        f"{100 * margin(results.n_test):.1f}"
    )
    return Part(question(values, results), number)


def _in(kind):
    return f"the {kind}" if kind.startswith("test") else kind


def _label(pairs, index):
    """Name one of two runs by what tells them apart: network, batch size or both."""
    run, other = pairs[0][index], pairs[0][1 - index]
    words = [name(run)] if run.network != other.network else []
    words += [f"at {run.batch}"] if run.batch != other.batch else []
    return " ".join(words)


def _accuracies(kind, pairs, values):
    first, second = pairs[0]
    ours, theirs = zip(*values)
    return (
        f"{kind} accuracy of {name(first)} at {first.batch} {_percent(ours)}, of "
        f"{name(second)} at {second.batch} {_percent(theirs)}"
    )


def _percent(values):
    return f"{spread([100 * value for value in values], '.1f')} %"


def _training(pairs):
    return [tuple(run.columns[TRAIN_ACCURACY][-1] for run in pair) for pair in pairs]


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


def _all_sooner(epochs):
    """Whether the first of the pairs is sooner in each seed; False if in none."""
    found = {ours < theirs for ours, theirs in epochs}
    if np.isnan(epochs).any() or len(found) > 1:
        return None
    return found.pop()
