"""Claim 7 of the paper: the extra time of multigpuBN comes from synchronizing.

The paper measured 748 s without normalization, 804 s with normalBN and 1211 s with
multigpuBN. It says neither how many GPUs there were nor what its program did, so
everything that may have been is evaluated: each layout and variant, at all corners of
the ranges of the parameters, and at random points in them.
"""

import itertools

import numpy as np

from chainer_crossbn.experiments.scaling import judging, tsubame_kfc
from chainer_crossbn.plotting.papers import PAPER_SECONDS

PAPER = {
    "ratio": PAPER_SECONDS["multigpu"] / PAPER_SECONDS["normal"],
    "none_to_normal": PAPER_SECONDS["none"] / PAPER_SECONDS["normal"],
    "multigpu_to_none": PAPER_SECONDS["multigpu"] / PAPER_SECONDS["none"],
}
PARTS = ("arithmetic", "transfer", "waiting")

_DRAWS = 50000
# How near a random point comes to a ratio of the paper, to count as giving it.
_WITHIN = 0.01
# Where one parameter is varied at a time.
_STANDARD = tsubame_kfc.Layout(8, 1, 2), tsubame_kfc.Variant(2, "exact")


def relative_skew(fitted):
    """Return what :func:`claim7` assumes of GPUs.

    Args:
        fitted (Model): Fitted.

    Returns:
        tuple of float or None: From none to the relative skew of the network with
        all-reduces that has most, at its largest batch size, which is the nearest to
        the paper's; None where there is no such network, or where no rank ever waits.
    """
    found = [
        network.relative_skew(network.batches[-1])
        for network in fitted.networks.values()
        if network.collectives
    ]
    return (0.0, max(found)) if any(found) else None


def claim7(relative_skew):
    """Evaluate the claim.

    Args:
        relative_skew (tuple of float): Lowest and highest standard deviation of what a
            rank computes between two collectives, as a share of its mean.

    Returns:
        dict: What JSON takes:

        - ``verdict``: in the model, as :func:`.judging.verdict` gives it;
        - ``found``: sentences that say why, without full stops;
        - ``deciding``: the number that decides, in a few words;
        - ``parameters``: what was assumed, with ranges and sources;
        - ``rows``: for each layout and variant ``ratio`` of multigpuBN to normalBN,
          ``none_to_normal`` and ``multigpu_to_none`` as [low, middle, high];
          ``reached``, whether the paper's ratio lies in the range; ``alone``, the
          ratio that each part of the extra time gives by itself at most; ``split``, the
          parts' shares in the middle; ``all_reduce``, microseconds of one of the
          normalizations, in the middle; for the paper's ratio, with all else in the
          middle, ``factor``, how many times as long it would have to be if no rank
          waited, and ``skew``, how large the relative skew;
          ``unwaited``, the highest ratio if no rank waits; ``as_paper``, how many
          random points give both of the paper's ratios, ``as_paper_split``, the shares
          there as [least, mean, most], and ``as_paper_skew``, the least relative skew;
        - ``sensitivity``: ratios at the low end, the middle and the high end of each
          parameter, all else in the middle, for 8 GPUs on a node and two exact
          all-reduces.
    """
    parameters = tsubame_kfc.parameters(relative_skew)
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=len(parameters))))
    draws = np.random.RandomState(0).uniform(size=(_DRAWS, len(parameters)))
    values = _values(parameters, np.concatenate([corners, draws]))
    drawn = slice(len(corners), None)
    middle = _values(parameters, np.full(len(parameters), 0.5))
    rows = [
        _row(layout, variant, values, drawn, middle)
        for layout in tsubame_kfc.LAYOUTS
        for variant in tsubame_kfc.VARIANTS
    ]
    return {
        "verdict": judging.verdict(rows),
        "found": judging.sentences(rows, relative_skew),
        "deciding": judging.deciding(rows),
        "paper": PAPER,
        "parameters": [parameter._asdict() for parameter in parameters],
        "rows": rows,
        "sensitivity": _sensitivity(parameters),
    }


def _values(parameters, shares):
    """Return the parameters at points that are given as shares of their ranges."""
    low = np.array([p.low for p in parameters])
    high = np.array([p.high for p in parameters])
    points = low + shares * (high - low)
    return {p.name: column for p, column in zip(parameters, points.T)}


def _row(layout, variant, values, drawn, middle_values):
    found = tsubame_kfc.iteration(layout, variant, values)
    middle = tsubame_kfc.iteration(layout, variant, middle_values)
    ratios, middles = _ratios(found), _ratios(middle)
    as_paper = np.logical_and.reduce(
        [
            np.abs(ratios[name][drawn] - PAPER[name]) < _WITHIN
            for name in ("ratio", "none_to_normal")
        ]
    )
    extra = found.multigpu - found.normal
    added = found.arithmetic + found.transfer
    row = {
        **layout._asdict(),
        **variant._asdict(),
        **{
            name: [float(v) for v in (each.min(), middles[name], each.max())]
            for name, each in ratios.items()
        },
        "reached": bool(
            ratios["ratio"].min() <= PAPER["ratio"] <= ratios["ratio"].max()
        ),
        "alone": {
            part: float((1 + getattr(found, part) / found.normal).max())
            for part in PARTS
        },
        "unwaited": float((1 + added / (found.normal - found.once)).max()),
        "split": {
            part: float(getattr(middle, part) / (middle.multigpu - middle.normal))
            for part in PARTS
        },
        "all_reduce": float(middle.transfer / middle.collectives * 1e6),
        "factor": _needed_factor(middle),
        "skew": _needed_skew(middle, middle_values["skew"]),
        "as_paper": int(as_paper.sum()),
        "as_paper_split": None,
        "as_paper_skew": None,
    }
    if as_paper.any():
        row["as_paper_split"] = {
            part: _spread((getattr(found, part) / extra)[drawn][as_paper])
            for part in PARTS
        }
        row["as_paper_skew"] = float(values["skew"][drawn][as_paper].min())
    return row


def _ratios(found):
    return {
        "ratio": found.multigpu / found.normal,
        "none_to_normal": found.none / found.normal,
        "multigpu_to_none": found.multigpu / found.none,
    }


def _spread(values):
    return [float(v) for v in (values.min(), values.mean(), values.max())]


def _needed_factor(middle):
    """Solve the paper's ratio for the time of an all-reduce, if no rank waits."""
    missing = (PAPER["ratio"] - 1) * (middle.normal - middle.once) - middle.arithmetic
    return float(missing / middle.transfer)


def _needed_skew(middle, skew):
    """Solve the paper's ratio for the relative skew.

    Waiting is proportional to it, in both networks: with w and o for an increase of 1,
    a + t + w s = (ratio - 1) (n + o s), where n is normalBN without waiting.
    """
    more = PAPER["ratio"] - 1
    missing = more * (middle.normal - middle.once) - middle.arithmetic - middle.transfer
    return float(missing / ((middle.waiting - more * middle.once) / skew))


def _sensitivity(parameters):
    found = {}
    for index, parameter in enumerate(parameters):
        shares = np.full((3, len(parameters)), 0.5)
        shares[:, index] = 0.0, 0.5, 1.0
        seen = tsubame_kfc.iteration(*_STANDARD, _values(parameters, shares))
        found[parameter.name] = (seen.multigpu / seen.normal).tolist()
    return found
