"""A communicator for gradients in host memory."""

from typing import Any

import chainer
import numpy
from chainer import backend
from chainermn.communicators.naive_communicator import NaiveCommunicator
from mpi4py import MPI

from chainer_crossbn.collectives import shared_mean
from chainer_crossbn.collectives.shared_memory import is_usable

_BLOCK_BYTES = 4 << 20


class HostCommunicator(NaiveCommunicator):
    """Averages gradients in host memory, in blocks that fit the cache.

    ChainerMN's ``naive`` communicator makes one all-reduce for each gradient and then
    divides it. This one packs small gradients together and splits large ones, so that
    each block is divided while it is in the cache. Ranks of one node average in shared
    memory, others by MPI. Otherwise it is the ``naive`` communicator, except that
    gradients need not be C-contiguous.

    Akiba, Fukuda and Suzuki, "ChainerMN: Scalable Distributed Deep Learning Framework"
    (2017), describe the average of gradients over ranks.

    Args:
        mpi_comm (mpi4py.MPI.Comm): Communicator of all ranks.

    Attributes:
        rank (int): This rank.
        size (int): Number of ranks.
        mpi_comm (mpi4py.MPI.Comm): As above.

    Example:
        >>> from chainer_crossbn.communicators.host import HostCommunicator
        >>> import chainer.links as L
        >>> from mpi4py import MPI
        >>> comm = HostCommunicator(MPI.COMM_WORLD)
        >>> model = L.Linear(2, 1)
        >>> model.W.grad = model.W.array * comm.rank
        >>> model.b.grad = model.b.array + comm.rank
        >>> comm.multi_node_mean_grad(model)
        >>> model.b.grad  # the mean of the ranks
        array([0.], dtype=float32)
    """

    def __init__(self, mpi_comm):
        super().__init__(mpi_comm)
        self._buffers = {}
        self._block_bytes = _BLOCK_BYTES
        self._shared = None
        if self.size > 1 and is_usable(mpi_comm):
            self._shared = {}
            self._block_bytes = shared_mean.block_bytes(self.size)

    def multi_node_mean_grad(self, model, zero_fill=False):
        """Average the gradients of a model over the ranks, in place.

        Args:
            model (chainer.Link): Has gradients of the same parameters on all ranks.
            zero_fill (bool): Whether a missing gradient counts as 0.
        """
        gradients = gradients_of(model, zero_fill)
        if not all(
            isinstance(g, numpy.ndarray) and g.dtype.char in "fd" for g in gradients
        ):
            super().multi_node_mean_grad(model, zero_fill)
            return
        for dtype in (numpy.float32, numpy.float64):
            self._average([g for g in gradients if g.dtype == dtype], dtype)

    def _average(self, gradients, dtype):
        size = self._block_bytes // numpy.dtype(dtype).itemsize
        buffer = self._buffers.setdefault(dtype, numpy.empty(size, dtype))
        packed, used = [], 0
        for gradient in gradients:
            if gradient.size > size:
                self._average_large(gradient, size)
                continue
            if used + gradient.size > size:
                self._average_small(packed, buffer[:used])
                packed, used = [], 0
            packed.append(gradient)
            used += gradient.size
        self._average_small(packed, buffer[:used])

    def _average_small(self, gradients, buffer):
        if not gradients:
            return
        numpy.concatenate([g.ravel() for g in gradients], out=buffer)
        self._average_block(buffer)
        start = 0
        for gradient in gradients:
            part = buffer[start : start + gradient.size]
            gradient[...] = part.reshape(gradient.shape)
            start += gradient.size

    def _average_large(self, gradient, size):
        flat = gradient.ravel()  # a copy where it is not contiguous
        for start in range(0, flat.size, size):
            self._average_block(flat[start : start + size])
        if flat.base is None:
            gradient[...] = flat.reshape(gradient.shape)

    def _average_block(self, block):
        if self._shared is not None:
            if block.dtype not in self._shared:
                mean = shared_mean.SharedMean(self.mpi_comm, block.dtype)
                self._shared[block.dtype] = mean
            self._shared[block.dtype].average(block)
            return
        self.mpi_comm.Allreduce(MPI.IN_PLACE, block)
        block *= block.dtype.type(1 / self.size)


def gradients_of(model: chainer.Link, zero_fill: bool) -> list:
    """Return the gradients of a model, in the same order on all ranks."""
    pairs = sorted(model.namedparams())
    parameters: list[Any] = [p for _, p in pairs if p.array is not None]
    if zero_fill:
        for p in parameters:
            if p.grad is None:
                xp = backend.get_array_module(p.array)
                p.grad_var = chainer.Variable(xp.zeros_like(p.array))
    return [p.grad for p in parameters if p.grad is not None]
