"""All-reduces by a communicator that has nothing but ``allreduce``."""

import zlib

import numpy

from chainer_crossbn.collectives.order import tagged, tags_agree
from chainer_crossbn.errors import CollectiveError


def sum_over_ranks(comm, vector, layer):
    """Return the sum of the ranks' vectors, which are in host memory."""
    # 16 bits, so that the check is exact with up to a thousand ranks.
    number = zlib.crc32(f"{layer} {vector.size}".encode()) & 0xFFFF
    total = comm.allreduce(tagged(number, vector))
    if not tags_agree(total, comm.size):
        raise CollectiveError(
            f"the ranks reached different layers: this one is at {layer}"
        )
    return total[2:]


def merge_moments(comm, count, mean, m2, layer):
    """Return count, mean and M2 of the ranks' mini-batches together, by sums."""
    sums = numpy.concatenate(((count,), count * mean, m2 + count * mean * mean))
    total = sum_over_ranks(comm, sums, layer)
    c = len(mean)
    mean = total[1 : 1 + c] / max(total[0], 1)
    m2 = total[1 + c :] - total[0] * mean * mean
    # Not max(0, m2): that would hide a NaN.
    return int(total[0]), mean, numpy.where(m2 < 0, 0, m2)
