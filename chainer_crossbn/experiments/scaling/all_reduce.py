"""What an all-reduce takes.

Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in
MPICH" (2005): short vectors by recursive doubling, long ones by a reduce-scatter and an
all-gather. Times are in seconds, sizes in bytes, bandwidths in bytes per second.
"""

import math


def rounds(n):
    """Return the rounds of recursive doubling among n ranks, ⌈log2 n⌉."""
    return math.ceil(math.log2(n))


def short(n, latency, size=0, bandwidth=math.inf):
    """Return the time of a short vector: every rank sends all of it in each round.

    Args:
        n (int): Number of ranks.
        latency (float): Of a message.
        size (float): Of the vector.
        bandwidth (float): Of a rank.
    """
    return rounds(n) * (latency + size / bandwidth)


def long(n, size, bandwidth):
    """Return the time of a long vector: 2(n-1)/n of it pass through each rank.

    Latency is left out, as is the arithmetic.

    Args:
        n (int): Number of ranks.
        size (float): Of the vector.
        bandwidth (float): Of a rank.
    """
    return 2 * (n - 1) / n * size / bandwidth
