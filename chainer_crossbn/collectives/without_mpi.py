"""All-reduces by a communicator that has no ``mpi_comm``, only ``allreduce``."""

import zlib

import numpy
from chainer import backend

from chainer_crossbn.collectives.order import tags_agree, with_tags
from chainer_crossbn.errors import CollectiveError


class AllreduceChannel:
    """All-reduces by the ``allreduce`` of a communicator, in host memory.

    Args:
        comm: Has ``size`` and ``allreduce``.
    """

    def __init__(self, comm):
        self._comm = comm

    def sum(self, vector, layer: str):
        """Return the sum of the ranks' vectors."""
        device = backend.get_device_from_array(vector)
        return device.send(self._sum(backend.CpuDevice().send(vector), layer))

    def merge(self, count: int, mean, m2, layer: str):
        """Return count, mean and M2 of the ranks' mini-batches together, by sums."""
        device = backend.get_device_from_array(mean)
        mean, m2 = (backend.CpuDevice().send(v) for v in (mean, m2))
        sums = numpy.concatenate(((count,), count * mean, m2 + count * mean * mean))
        total = self._sum(sums, layer)
        c = len(mean)
        mean = total[1 : 1 + c] / max(total[0], 1)
        m2 = total[1 + c :] - total[0] * mean * mean
        # Not max(0, m2), which would hide a NaN.
        m2 = numpy.where(m2 < 0, 0, m2)
        return int(total[0]), device.send(mean), device.send(m2)

    def _sum(self, vector, layer):
        # 16 bits, so that the check is exact with up to a thousand ranks.
        number = zlib.crc32(f"{layer} {vector.size}".encode()) & 0xFFFF
        total = self._comm.allreduce(with_tags(number, vector))
        if not tags_agree(total, self._comm.size):
            raise CollectiveError(
                f"the ranks reached different layers: this one is at {layer}"
            )
        return total[2:]
