"""Running statistics that are averaged over the ranks."""

import chainer.links as L
import numpy
from chainer import backend
from chainermn.links import MultiNodeBatchNormalization


def averaged(model, comm):
    """Return the model with the mean of the ranks' running statistics.

    Where each rank keeps statistics of its own (normalBN), the mixture of the ranks'
    distributions has the mean of the means and, as variance, the mean of
    ``var + mean**2`` less the square of that mean. The ranks' own state stays as it is.

    All ranks must call it together.

    Args:
        model (chainer.Link): Any model.
        comm: ChainerMN communicator.

    Returns:
        chainer.Link: A copy that shares the parameters, or ``model`` itself where all
        ranks have the same statistics anyway.
    """
    if comm.size == 1 or not any(_differs(link, comm) for link in model.links()):
        return model
    cpu = backend.CpuDevice()
    copied = model.copy()
    links = [link for link in copied.links() if _differs(link, comm)]
    local = []
    for link in links:
        mean, var = (
            cpu.send(v).astype(numpy.float64).ravel()
            for v in (link.avg_mean, link.avg_var)
        )
        local += [mean, var + mean * mean]
    # On the host, as MPI may not read the memory of GPUs.
    total = comm.allreduce(numpy.concatenate(local)) / comm.size
    for link in links:
        c = link.avg_mean.size
        mean, square = total[:c], total[c : 2 * c]
        total = total[2 * c :]
        var = numpy.maximum(square - mean * mean, 0)
        shape, dtype = link.avg_mean.shape, link.avg_mean.dtype
        link.avg_mean, link.avg_var = (
            link.device.send(v.reshape(shape).astype(dtype)) for v in (mean, var)
        )
    return copied


def _differs(link, comm):
    if not isinstance(link, (L.BatchNormalization, MultiNodeBatchNormalization)):
        return False
    if isinstance(link, MultiNodeBatchNormalization):
        return True  # its running variance follows from the size of the local batch
    group = getattr(link, "comm", None)
    return group is None or group.size != comm.size
