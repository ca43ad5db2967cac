"""How unevenly the ranks compute, and how long they wait for the slowest one."""

import functools
import math
from typing import Optional

import numpy as np

from chainer_crossbn.experiments.scaling.observations import Observation


def relative_skew(observations: list[Observation]) -> Optional[float]:
    """Estimate the relative skew: how much the computing times of the ranks scatter.

    It is the standard deviation of what a rank computes between two collectives, as a
    share of its mean. If the times of two ranks are normal with standard deviation σ,
    a rank waits σ/√π on average for the slower one.

    Args:
        observations (list of Observation): Measurements.

    Returns:
        float or None: The value of the network with all-reduces that has most, at its
        largest batch size. ``None`` if no network with all-reduces has runs of two
        ranks, with a core each, at two batch sizes, or if no rank ever waits.
    """
    networks = {}
    for each in observations:
        if each.ranks == 2 and each.cores >= 2 and each.collectives and each.bn_wait:
            networks.setdefault(each.network, []).append(each)
    shares = [
        _share_at_largest_batch(members)
        for members in networks.values()
        if len({each.batch for each in members}) > 1
    ]
    return max(shares, default=None)


def _share_at_largest_batch(members):
    batches = [each.batch for each in members]
    deviations = [
        each.bn_wait / each.collectives * math.sqrt(math.pi) for each in members
    ]
    deviation = _line(batches, deviations)(max(batches))
    compute = _line(batches, [each.compute for each in members])(max(batches))
    return float(deviation * members[0].collectives / compute)


def _line(batches, times):
    """Fit a line to times by least squares of relative errors."""
    times = np.array(times)
    weights = 1 / np.maximum(times, 1e-3 * times.max())
    return np.poly1d(np.polyfit(batches, times, deg=1, w=weights))


@functools.cache
def normal_maximum(n: int) -> float:
    """Return the expected maximum of n independent standard normal variables.

    E[max] = ∫ x n φ(x) Φ(x)^(n-1) dx, by the trapezoidal rule, which is exact to
    rounding for a smooth function that vanishes at both ends.
    """
    x = np.linspace(-10, 10, 4001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    return float(np.sum(x * n * density * below ** (n - 1)) * (x[1] - x[0]))


def exponential_maximum(n: int) -> float:
    """Return the expected maximum of n exponential variables of mean 1, less the mean.

    It is H_n - 1 = 1/2 + ... + 1/n, scaled so that it equals :func:`normal_maximum`
    for two variables.
    """
    excess = sum(1 / i for i in range(2, n + 1))
    return excess * (normal_maximum(2) / 0.5)
