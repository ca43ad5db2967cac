"""By how much the slowest of several ranks is late."""

import functools
import math

import numpy as np


@functools.cache
def normal_maximum(n):
    """Return the expected maximum of independent standard normal variables.

    E[max] = ∫ x n φ(x) Φ(x)^(n-1) dx, by the trapezoidal rule, which for a smooth
    function that vanishes at both ends is exact to rounding.

    Args:
        n (int): How many.

    Returns:
        float: Such as 0.5642 = 1/√π of 2 variables.
    """
    x = np.linspace(-10, 10, 4001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    return float(np.sum(x * n * density * below ** (n - 1)) * (x[1] - x[0]))


def exponential_maximum(n):
    """Return by how much the maximum of exponential variables exceeds their mean.

    That is H_n - 1 = 1/2 + ... + 1/n, for a mean (and standard deviation) of 1; of two
    variables 0.5.

    Args:
        n (int): How many.
    """
    return sum(1 / i for i in range(2, n + 1))


def slowest(n):
    """Return by how many standard deviations the slowest of n ranks is late.

    Args:
        n (int): Number of ranks.

    Returns:
        tuple of float: With normal times; and with exponential tails, for a standard
        deviation such that both say the same of two ranks.
    """
    same_of_two = normal_maximum(2) / exponential_maximum(2)
    return normal_maximum(n), exponential_maximum(n) * same_of_two
