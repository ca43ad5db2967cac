"""Claim 7 of the paper: the extra time of multigpuBN comes from synchronizing.

The paper measured 748 s without normalization, 804 s with normalBN and 1211 s with
multigpuBN. It says neither how many GPUs there were nor what its program did, so
everything that may have been is evaluated: each layout and variant, at all corners of
the ranges of the parameters, and at random points in them.

The claim holds if at every random point that gives both of the paper's ratios, 0.930 of
noBN to normalBN and 1.506 of multigpuBN to normalBN, more than half of the extra time
is transfer (synchronizing the device, copies, all-reduces) and waiting for other ranks;
it does not if at every one it is less; else it can't be told.
"""

import itertools

import numpy as np

from chainer_crossbn.plotting.papers import PAPER_SECONDS
from chainer_crossbn.scaling import tsubame_kfc

RATIO = PAPER_SECONDS["multigpu"] / PAPER_SECONDS["normal"]
NONE_RATIO = PAPER_SECONDS["none"] / PAPER_SECONDS["normal"]
MULTIGPU_TO_NONE = PAPER_SECONDS["multigpu"] / PAPER_SECONDS["none"]
PARTS = ("arithmetic", "transfer", "waiting")
HOLDS = "holds"
FAILS = "does not hold"
UNCLEAR = "can't be told"

_DRAWS = 50000
# How near a random point comes to a ratio of the paper, to count as giving it.
_WITHIN = 0.01
# Where one parameter is varied at a time.
_STANDARD = tsubame_kfc.Layout(8, 1, 2), tsubame_kfc.Variant(2, "exact")


def claim7(relative_skew):
    """Evaluate the claim.

    Args:
        relative_skew (tuple of float): Lowest and highest standard deviation of what a
            rank computes between two collectives, as a share of its mean.

    Returns:
        dict: What JSON takes:

        - ``verdict``: :data:`HOLDS`, :data:`FAILS` or :data:`UNCLEAR`, in the model;
        - ``found``: sentences that say why, without full stops;
        - ``parameters``: what was assumed, with ranges and sources;
        - ``rows``: for each layout and variant ``ratio`` of multigpuBN to normalBN,
          ``none_to_normal`` and ``multigpu_to_none`` as [low, middle, high];
          ``reached``, whether the paper's ratio lies in the range; ``alone``, the
          ratio that each part of the extra time gives by itself at most; ``split``, the
          parts' shares in the middle; ``all_reduce``, microseconds of one of the
          normalizations, in the middle; for the paper's ratio, with all else in the
          middle, ``factor``, how many times as long it would have to be if no rank
          waited, and ``skew``, how large the relative skew (None: none gives it);
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
    middle = np.full((1, len(parameters)), 0.5)
    # The middle comes last.
    values = _values(parameters, np.concatenate([corners, draws, middle]))
    drawn = slice(len(corners), -1)
    found = [
        (layout, variant, tsubame_kfc.iteration(layout, variant, values))
        for layout in tsubame_kfc.LAYOUTS
        for variant in tsubame_kfc.VARIANTS
    ]
    rows = [
        _row(layout, variant, iteration, drawn, values["skew"])
        for layout, variant, iteration in found
    ]
    return {
        "verdict": _verdict(rows),
        "found": _found(rows, relative_skew),
        "paper": {
            "ratio": RATIO,
            "none_to_normal": NONE_RATIO,
            "multigpu_to_none": MULTIGPU_TO_NONE,
        },
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


def _row(layout, variant, found, drawn, skew):
    ratio = found.multigpu / found.normal
    none = found.none / found.normal
    near = np.abs(ratio - RATIO) < _WITHIN, np.abs(none - NONE_RATIO) < _WITHIN
    as_paper = np.logical_and(*near)[drawn]
    extra = found.multigpu - found.normal
    added = found.arithmetic + found.transfer
    shares = {part: getattr(found, part) / extra for part in PARTS}
    middle = tsubame_kfc.Iteration(
        *(np.broadcast_to(v, extra.shape)[-1] for v in found)
    )
    return {
        **layout._asdict(),
        **variant._asdict(),
        "ratio": _range(ratio),
        "none_to_normal": _range(none),
        "multigpu_to_none": _range(found.multigpu / found.none),
        "reached": bool(ratio.min() <= RATIO <= ratio.max()),
        "alone": {
            part: float((1 + getattr(found, part) / found.normal).max())
            for part in PARTS
        },
        "unwaited": float((1 + added / (found.normal - found.once)).max()),
        "split": {part: float(share[-1]) for part, share in shares.items()},
        "all_reduce": float(middle.transfer / middle.collectives * 1e6),
        "factor": _needed_factor(middle),
        "skew": _needed_skew(middle, skew[-1]),
        "as_paper": int(as_paper.sum()),
        "as_paper_split": {
            part: _spread(share[drawn][as_paper]) for part, share in shares.items()
        }
        if as_paper.any()
        else None,
        "as_paper_skew": float(skew[drawn][as_paper].min()) if as_paper.any() else None,
    }


def _range(values):
    return [float(v) for v in (values.min(), values[-1], values.max())]


def _spread(values):
    return [float(v) for v in (values.min(), values.mean(), values.max())]


def _needed_factor(middle):
    """Solve the paper's ratio for the time of an all-reduce, if no rank waits."""
    missing = (RATIO - 1) * (middle.normal - middle.once) - middle.arithmetic
    return float(missing / middle.transfer)


def _needed_skew(middle, skew):
    """Solve the paper's ratio for the relative skew.

    Waiting is proportional to it, in both networks: with w and o for an increase of 1,
    a + t + w s = (RATIO - 1) (n + o s), where n is normalBN without waiting.
    """
    waiting, once = middle.waiting / skew, middle.once / skew
    missing = (RATIO - 1) * (middle.normal - middle.once)
    missing -= middle.arithmetic + middle.transfer
    slope = waiting - (RATIO - 1) * once
    return float(missing / slope) if slope > 0 else None


def _synchronizing(row):
    """Return the least and the greatest share of synchronizing, as in the paper."""
    least, _, most = row["as_paper_split"]["arithmetic"]
    return 1 - most, 1 - least


def _verdict(rows):
    shares = [_synchronizing(row) for row in rows if row["as_paper"]]
    if shares and min(least for least, _ in shares) > 0.5:
        return HOLDS
    if shares and max(most for _, most in shares) < 0.5:
        return FAILS
    return UNCLEAR


def _found(rows, relative_skew):
    """Return sentences on what decides."""
    alone = {part: max(row["alone"][part] for row in rows) for part in PARTS}
    reached = [row for row in rows if row["reached"]]
    as_paper = [row for row in rows if row["as_paper"]]
    low, high = (min(r["ratio"][0] for r in rows), max(r["ratio"][2] for r in rows))
    none = [row["none_to_normal"] for row in rows]
    found = [
        f"the ratio is {low:.2f} to {high:.2f}; the paper's, {RATIO:.3f}, lies in the "
        f"range of {len(reached)} of {len(rows)} configurations",
        f"noBN to normalBN is {min(n[0] for n in none):.2f} to "
        f"{max(n[2] for n in none):.2f}; the paper's is {NONE_RATIO:.3f}",
        "alone, at most, "
        + ", ".join(f"{part} gives {ratio:.2f}" for part, ratio in alone.items())
        + f"; all but waiting {max(row['unwaited'] for row in rows):.2f}",
        "in the middle of all ranges an all-reduce takes "
        f"{min(r['all_reduce'] for r in rows):.0f} to "
        f"{max(r['all_reduce'] for r in rows):.0f} us; if no rank waited, it would "
        "have to take "
        f"{min(r['factor'] for r in rows):.0f} to "
        f"{max(r['factor'] for r in rows):.0f} times as long",
    ]
    skews = [row["skew"] for row in rows if row["skew"] is not None]
    found.append(
        "or the relative skew, without that, would have to be "
        f"{min(skews):.2f} to {max(skews):.2f}; in the profiles, on CPUs, it is "
        f"{relative_skew[1]:.2f}"
    )
    if as_paper:
        shares = [_synchronizing(row) for row in as_paper]
        skew = min(row["as_paper_skew"] for row in as_paper)
        found.append(
            f"{len(as_paper)} configurations have points that give both of the paper's "
            "ratios; there transfer and waiting are "
            f"{min(least for least, _ in shares):.0%} to "
            f"{max(most for _, most in shares):.0%} of the extra time, and the "
            f"relative skew is {skew:.2f} or more"
        )
    else:
        found.append("no point gives both of the paper's ratios")
    return found


def _sensitivity(parameters):
    found = {}
    for index, parameter in enumerate(parameters):
        shares = np.full((3, len(parameters)), 0.5)
        shares[:, index] = 0.0, 0.5, 1.0
        seen = tsubame_kfc.iteration(*_STANDARD, _values(parameters, shares))
        found[parameter.name] = (seen.multigpu / seen.normal).tolist()
    return found
