"""Claim 7 of the paper: the extra time of multigpuBN comes from synchronizing.

The paper measured 748 s without normalization, 804 s with normalBN and 1211 s with
multigpuBN. It gives neither the number of GPUs nor the details of its program.
Therefore each layout and variant is evaluated, at all corners of the ranges of the
parameters, and at random points in them.

The claim holds if, at every random point that gives both of the paper's ratios, 0.930
of noBN to normalBN and 1.506 of multigpuBN to normalBN, more than half of the extra
time is transfer (synchronizing the device, copies, all-reduces) and waiting for other
ranks. It does not hold if this share is less than half at every such point. Otherwise,
or without such points, it can't be told.
"""

import itertools
from typing import Any, NamedTuple, Optional

import numpy as np

from chainer_crossbn.experiments.scaling import tsubame_kfc
from chainer_crossbn.experiments.scaling.tsubame_kfc import (
    Iteration,
    Layout,
    Parameter,
    Variant,
)
from chainer_crossbn.plotting.papers import PAPER_SECONDS

HOLDS = "holds"
FAILS = "does not hold"
UNCLEAR = "can't be told"

PARTS = ("arithmetic", "transfer", "waiting")
_RATIO = PAPER_SECONDS["multigpu"] / PAPER_SECONDS["normal"]
_NONE_TO_NORMAL = PAPER_SECONDS["none"] / PAPER_SECONDS["normal"]
_DRAWS = 50000
# Largest distance of a random point from a ratio of the paper that it gives.
_WITHIN = 0.01


class Configuration(NamedTuple):
    """The extra time of multigpuBN in one layout and variant.

    Attributes:
        layout (Layout): Placement of the ranks.
        variant (Variant): Variant of the algorithm.
        ratio (tuple of float): Lowest, middle and highest time of multigpuBN, relative
            to normalBN.
        none_to_normal (tuple of float): The same of noBN.
        alone (dict): The highest ratio that each of :data:`PARTS` gives alone.
        without_waiting (float): The highest ratio if no rank waits.
        all_reduce (float): Microseconds of an all-reduce of a normalization, in the
            middle of all ranges.
        needed_factor (float): How many times as long it would take to give the paper's
            ratio, if no rank waited and all else were in the middle.
        needed_skew (float): The relative skew that would give the paper's ratio, with
            all else in the middle.
        matches (int): Number of random points that give both of the paper's ratios.
        matching_shares (tuple of float or None): Least and highest share of transfer
            and waiting in the extra time at these points.
        matching_skew (float or None): Least relative skew at these points.
    """

    layout: Layout
    variant: Variant
    ratio: tuple[float, float, float]
    none_to_normal: tuple[float, float, float]
    alone: dict[str, float]
    without_waiting: float
    all_reduce: float
    needed_factor: float
    needed_skew: float
    matches: int
    matching_shares: Optional[tuple[float, float]]
    matching_skew: Optional[float]

    @property
    def reached(self) -> bool:
        """Whether the paper's ratio lies in the range."""
        return self.ratio[0] <= _RATIO <= self.ratio[2]


def evaluate(parameters: tuple[Parameter, ...]) -> list[Configuration]:
    """Evaluate each layout and variant.

    Args:
        parameters (tuple of Parameter): As :func:`.tsubame_kfc.parameters` returns
            them.
    """
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=len(parameters))))
    draws = np.random.RandomState(0).uniform(size=(_DRAWS, len(parameters)))
    points = _values(parameters, np.concatenate([corners, draws]))
    middle = _values(parameters, np.full(len(parameters), 0.5))
    drawn = slice(len(corners), None)
    return [
        _configuration(layout, variant, points, middle, drawn)
        for layout in tsubame_kfc.LAYOUTS
        for variant in tsubame_kfc.VARIANTS
    ]


def _values(parameters, shares):
    """Return the parameters at points that are given as shares of their ranges."""
    low = np.array([p.low for p in parameters])
    high = np.array([p.high for p in parameters])
    points = low + shares * (high - low)
    return {p.name: column for p, column in zip(parameters, points.T)}


def _configuration(
    layout: Layout,
    variant: Variant,
    points: dict[str, Any],
    middle: dict[str, Any],
    drawn: slice,
) -> Configuration:
    times = tsubame_kfc.iteration(layout, variant, points)
    central = tsubame_kfc.iteration(layout, variant, middle)
    ratios = times.multigpu / times.normal
    none_to_normal = times.none / times.normal
    matching = (np.abs(ratios[drawn] - _RATIO) < _WITHIN) & (
        np.abs(none_to_normal[drawn] - _NONE_TO_NORMAL) < _WITHIN
    )
    added = times.arithmetic + times.transfer
    shares = skew = None
    if matching.any():
        extra = (times.multigpu - times.normal)[drawn][matching]
        of_arithmetic = times.arithmetic[drawn][matching] / extra
        shares = float(1 - of_arithmetic.max()), float(1 - of_arithmetic.min())
        skew = float(points["skew"][drawn][matching].min())
    return Configuration(
        layout=layout,
        variant=variant,
        ratio=_range(ratios, central.multigpu / central.normal),
        none_to_normal=_range(none_to_normal, central.none / central.normal),
        alone={
            part: float((1 + getattr(times, part) / times.normal).max())
            for part in PARTS
        },
        without_waiting=float((1 + added / (times.normal - times.once)).max()),
        all_reduce=float(central.transfer / central.collectives * 1e6),
        needed_factor=_needed_factor(central),
        needed_skew=_needed_skew(central, middle["skew"]),
        matches=int(matching.sum()),
        matching_shares=shares,
        matching_skew=skew,
    )


def _range(values, middle):
    return float(values.min()), float(middle), float(values.max())


def _needed_factor(middle: Iteration) -> float:
    """Solve the paper's ratio for the time of an all-reduce, if no rank waits."""
    missing = (_RATIO - 1) * (middle.normal - middle.once) - middle.arithmetic
    return float(missing / middle.transfer)


def _needed_skew(middle: Iteration, skew: float) -> float:
    """Solve the paper's ratio for the relative skew.

    Waiting is proportional to it, in both networks: with w and o for an increase of 1,
    a + t + w s = (ratio - 1) (n + o s), where n is normalBN without waiting.
    """
    more = _RATIO - 1
    missing = more * (middle.normal - middle.once) - middle.arithmetic - middle.transfer
    return float(missing / ((middle.waiting - more * middle.once) / skew))


def verdict(configurations: list[Configuration]) -> str:
    """Judge the claim: :data:`HOLDS`, :data:`FAILS` or :data:`UNCLEAR`."""
    shares = _matching_shares(configurations)
    if shares and min(shares) > 0.5:
        return HOLDS
    if shares and max(shares) < 0.5:
        return FAILS
    return UNCLEAR


def deciding(configurations: list[Configuration]) -> str:
    """Return a phrase with the number that decides."""
    shares = _matching_shares(configurations)
    if not shares:
        extent = _extent(itertools.chain(*(c.ratio for c in configurations)), ".2f")
        return f"the ratio of times is {extent} in the model, in the paper 1.51"
    return (
        f"transfer and waiting are {min(shares):.0%} to {max(shares):.0%} of the extra "
        "time in the model"
    )


def sentences(configurations: list[Configuration], relative_skew: float) -> list[str]:
    """Return the reasons for the verdict.

    Args:
        configurations (list of Configuration): As :func:`evaluate` returns them.
        relative_skew (float): Highest relative skew that was assumed.

    Returns:
        list of str: Sentences without full stops.
    """
    reached = [c for c in configurations if c.reached]
    gpus = sorted({c.layout.gpus for c in reached})
    with_gpus = f", with {', '.join(map(str, gpus))} GPUs" if gpus else ""
    ratios = itertools.chain(*(c.ratio for c in configurations))
    none_to_normal = itertools.chain(*(c.none_to_normal for c in configurations))
    alone = {part: max(c.alone[part] for c in configurations) for part in PARTS}
    without_waiting = max(c.without_waiting for c in configurations)
    result = [
        f"the ratio is {_extent(ratios, '.2f')}; the paper's 1.506 lies in the "
        f"range of {len(reached)} of {len(configurations)} configurations{with_gpus}",
        f"noBN to normalBN is {_extent(none_to_normal, '.2f')}; the paper's is 0.930",
        "alone, at most, "
        + ", ".join(f"{part} gives {ratio:.2f}" for part, ratio in alone.items())
        + f"; all but waiting {without_waiting:.2f}",
        "in the middle of all ranges an all-reduce takes "
        f"{_extent((c.all_reduce for c in configurations), '.0f')} us; if no rank "
        "waited, it would have to take "
        f"{_extent((c.needed_factor for c in configurations), '.0f')} times as long",
        "or else the relative skew would have to be "
        f"{_extent((c.needed_skew for c in configurations), '.2f')}; in the profiles, "
        f"on CPUs, it is {relative_skew:.2f}",
    ]
    matching = [c for c in configurations if c.matches]
    if not matching:
        return [*result, "no point gives both of the paper's ratios"]
    shares = _matching_shares(configurations)
    skew = min(c.matching_skew for c in matching)
    return [
        *result,
        f"{len(matching)} configurations have points that give both of the paper's "
        f"ratios; there transfer and waiting are {min(shares):.0%} to "
        f"{max(shares):.0%} of the extra time, and the relative skew is {skew:.2f} or "
        "more",
    ]


def _matching_shares(configurations):
    return [share for c in configurations for share in c.matching_shares or ()]


def _extent(values, form):
    values = list(values)
    return f"{min(values):{form}} to {max(values):{form}}"
