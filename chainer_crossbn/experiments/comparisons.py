"""Compare runs seed by seed; the verdicts on the claims follow from this."""

import math
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

import numpy as np

from chainer_crossbn.experiments.records import CHANCE
from chainer_crossbn.experiments.results import READINGS, Results, accuracy_with
from chainer_crossbn.plotting import networks
from chainer_crossbn.runs.reading import TRAIN_ACCURACY, TRAIN_LOSS, Run

# Two runs per seed.
Pairs = list[tuple[Run, Run]]
# Two accuracies per seed, and the results -> yes, no, or None for undecided.
Question = Callable[[list[tuple[float, float]], Results], Optional[bool]]


class Part(NamedTuple):
    """A part of a claim.

    Attributes:
        true (bool or None): Whether it is true; ``None`` if it is undecided.
        number (str): The number that decides, in a few words.
    """

    true: Optional[bool]
    number: str


def margin(n_test: int) -> float:
    """Return the least difference between accuracies of networks that differ."""
    return 2 * math.sqrt(0.5 / n_test)


def under_each_reading(
    results: Results, pairs: Pairs, question: Question
) -> tuple[list[Part], list[str]]:
    """Compare test accuracies, under each reading of running statistics.

    Args:
        results (Results): The finished runs.
        pairs (list of tuple): Two runs per seed.
        question (callable): :func:`alike` or :func:`more`.

    Returns:
        tuple: A list of :class:`Part`, and a list of lines with all numbers.
    """
    has_normal = any(run.network == "normal" for run in pairs[0])
    parts, lines = [], []
    for reading, name in READINGS.items() if has_normal else [("averaged", "")]:
        values = [tuple(accuracy_with(run, reading) for run in pair) for pair in pairs]
        kind = "test" if reading == "averaged" else f"test ({name})"
        true = question(values, results)
        parts.append(Part(true, _difference(kind, pairs, values, results.n_test)))
        note = f" ({name})" if has_normal else ""
        lines.append(_accuracies("test", pairs, values) + note)
    return parts, lines


def in_training(results: Results, pairs: Pairs, question: Question) -> tuple[Part, str]:
    """Compare training accuracies.

    Args:
        results (Results): The finished runs.
        pairs (list of tuple): Two runs per seed.
        question (callable): :func:`alike`, :func:`more` or :func:`differ`.

    Returns:
        tuple: A :class:`Part`, and a line with all numbers.
    """
    values = _training(pairs)
    number = _difference("training", pairs, values, results.n_test)
    return Part(question(values, results), number), _accuracies(
        "training", pairs, values
    )


def alike(values: list[tuple[float, float]], results: Results) -> Optional[bool]:
    """Return whether pairs of accuracies are alike.

    Args:
        values (list of tuple): Two accuracies per seed.
        results (Results): The finished runs.

    Returns:
        bool or None: ``None`` where it is undecided.
    """
    differences = [a - b for a, b in values]
    if abs(np.median(differences)) < margin(results.n_test):
        return True
    one_sided = min(differences) > 0 or max(differences) < 0
    return False if one_sided else None


def differ(values: list[tuple[float, float]], results: Results) -> Optional[bool]:
    """Return whether pairs of accuracies differ; see :func:`alike`."""
    are_alike = alike(values, results)
    return None if are_alike is None else not are_alike


def more(values: list[tuple[float, float]], results: Results) -> Optional[bool]:
    """Return whether the first accuracy of each pair is higher; see :func:`alike`."""
    are_alike = alike(values, results)
    if are_alike is None:
        return None
    return not are_alike and values[0][0] > values[0][1]


def sooner(
    results: Results, pairs: Pairs, key: str, quantity: str
) -> tuple[Part, tuple[float, ...], tuple[float, ...]]:
    """Compare the epochs that runs take to the value that both of a pair reach.

    Args:
        results (Results): The finished runs.
        pairs (list of tuple): Two runs per seed.
        key (str): Column of the log.
        quantity (str): Name of that column in sentences.

    Returns:
        tuple: A :class:`Part`, and the epochs of the first and of the second runs.
    """
    epochs = [_epochs_to_the_same(pair, key) for pair in pairs]
    both_learn = min(map(min, _training(pairs))) > CHANCE + margin(results.n_test)
    ours, theirs = zip(*epochs)
    number = (
        f"{np.median(ours):.1f} epochs ({_label(pairs, 0)}) against "
        f"{np.median(theirs):.1f} ({_label(pairs, 1)}) to the same {quantity}"
    )
    return Part(_all_sooner(epochs) if both_learn else None, number), ours, theirs


def learns(results: Results, runs: list[Run], kind: str) -> Part:
    """Return whether all runs end above chance.

    Args:
        results (Results): The finished runs.
        runs (list of Run): One per seed.
        kind (str): ``"training"`` or ``"test"``, which accuracy counts.
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


def name(run: Run) -> str:
    """Return the paper's name of the network of a run."""
    return networks.name(run.network)


def spread(values: Sequence[float], form: str) -> str:
    """Format the median of values and, of several, their range.

    Args:
        values (sequence of float): One per seed.
        form (str): Format of a number, such as ``".1f"``.
    """
    text = format(np.median(values), form)
    if len(values) == 1:
        return text
    return f"{text} ({min(values):{form}}–{max(values):{form}})"


def _difference(kind, pairs, values, n_test):
    """Describe both accuracies and their difference."""
    ours, theirs = (100 * np.median(column) for column in zip(*values))
    difference = 100 * np.median([a - b for a, b in values])
    return (
        f"{ours:.1f} % ({_label(pairs, 0)}) against {theirs:.1f} % "
        f"({_label(pairs, 1)}) in {_in(kind)}; difference {difference:+.1f}, margin "
        f"{100 * margin(n_test):.1f}"
    )


def _in(kind):
    return f"the {kind}" if kind.startswith("test") else kind


def _label(pairs, index):
    """Name one of two runs by what tells them apart: network, batch size or both."""
    run, other = pairs[0][index], pairs[0][1 - index]
    parts = [name(run)] if run.network != other.network else []
    parts += [f"at {run.batch}"] if run.batch != other.batch else []
    return " ".join(parts)


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

    Both are NaN where one of these values is NaN.
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
    """Return whether the first of each pair is sooner; None if seeds disagree."""
    answers = {ours < theirs for ours, theirs in epochs}
    if np.isnan(epochs).any() or len(answers) > 1:
        return None
    return answers.pop()
