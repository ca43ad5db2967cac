"""A communicator for gradients on GPUs that averages them in host memory."""

import numpy
from chainer import backend
from chainer.backends import cuda

from chainer_crossbn import kernels
from chainer_crossbn.communicators.host import HostCommunicator, gradients_of
from chainer_crossbn.kernels.cuda.launching import copy_to_device, copy_to_host, pinned


class StagedCommunicator(HostCommunicator):
    """Averages gradients on GPUs in pinned host memory.

    It needs neither NCCL, so ranks may share a GPU, nor an MPI library that takes
    addresses on GPUs. All gradients of a dtype are copied to the host and back at once.
    Those in float16 are averaged in float32. Everything else is as in
    :class:`HostCommunicator`.

    Args:
        mpi_comm (mpi4py.MPI.Comm): All ranks.
    """

    def multi_node_mean_grad(self, model, zero_fill=False):
        """As :meth:`HostCommunicator.multi_node_mean_grad`."""
        gradients = gradients_of(model, zero_fill)
        if not all(map(kernels.on_gpu, gradients)):
            super().multi_node_mean_grad(model, zero_fill)
            return
        for char in "efd":
            same_dtype = [g for g in gradients if g.dtype.char == char]
            if same_dtype:
                self._average_on_host(
                    same_dtype, numpy.promote_types(char, numpy.float32)
                )

    def _average_on_host(self, gradients, dtype):
        flat = cuda.cupy.concatenate([g.ravel() for g in gradients])
        flat = flat.astype(dtype, copy=False)
        key = "pinned", dtype
        if key not in self._buffers or self._buffers[key].size < flat.size:
            self._buffers[key] = pinned(flat.size, dtype)
        staged = self._buffers[key][: flat.size]
        copy_to_host(flat, staged)
        self._average_large(staged, self._block_bytes // dtype.itemsize)
        copy_to_device(staged, flat)
        start = 0
        for gradient in gradients:
            part = flat[start : start + gradient.size]
            gradient[...] = part.reshape(gradient.shape)
            start += gradient.size

    def bcast_data(self, model):
        """Broadcast the parameters of rank 0.

        Args:
            model (chainer.Link): Has parameters of the same shapes on all ranks.
        """
        for _, parameter in sorted(model.namedparams()):
            if parameter.array is not None:
                values = backend.CpuDevice().send(parameter.array)
                values = self.mpi_comm.bcast(values)
                parameter.array[...] = parameter.xp.asarray(values)
