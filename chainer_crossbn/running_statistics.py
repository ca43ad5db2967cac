"""One set of running statistics where each rank has its own (normalBN)."""

import chainer.links as L
import numpy
from chainer import backend
from chainermn.links import MultiNodeBatchNormalization


def averaged(model, comm, between=True):
    """Return the model with the mean of the ranks' running statistics.

    Where each rank keeps statistics of its own (normalBN), the mixture of the ranks'
    distributions has the mean of the means and, as variance, the mean of
    ``var + mean**2`` less the square of that mean. The ranks' own state stays as it is.

    All ranks must call it together.

    Args:
        model (chainer.Link): Any model.
        comm: ChainerMN communicator.
        between (bool): Whether the variance of the means between the ranks is part of
            the variance; without it this is the mean of the variances.

    Returns:
        chainer.Link: A copy that shares the parameters, or ``model`` itself where all
        ranks have the same statistics anyway.
    """

    def mixture(mean, var):
        square = var + mean * mean if between else var
        # On the host, as MPI may not read the memory of GPUs.
        total = comm.allreduce(numpy.concatenate([mean, square])) / comm.size
        mean, square = numpy.split(total, 2)
        return mean, numpy.maximum(square - mean * mean, 0) if between else square

    return _with_statistics(model, comm, mixture)


def of_rank_zero(model, comm):
    """Return the model with the running statistics of rank 0.

    All ranks must call it together.

    Args:
        model (chainer.Link): Any model.
        comm: ChainerMN communicator.

    Returns:
        chainer.Link: As :func:`averaged` returns it.
    """

    def from_rank_zero(*own):
        return comm.bcast_obj(own if comm.rank == 0 else None)

    return _with_statistics(model, comm, from_rank_zero)


def _with_statistics(model, comm, take):
    """Copy a model, with what ``take`` makes of the means and variances of a rank."""
    if comm.size == 1 or not any(_differs(link, comm) for link in model.links()):
        return model
    copied = model.copy()
    links = [link for link in copied.links() if _differs(link, comm)]
    cpu = backend.CpuDevice()
    means, variances = take(
        *(
            numpy.concatenate(
                [
                    cpu.send(getattr(link, name)).astype(numpy.float64).ravel()
                    for link in links
                ]
            )
            for name in ("avg_mean", "avg_var")
        )
    )
    start = 0
    for link in links:
        shape, dtype = link.avg_mean.shape, link.avg_mean.dtype
        part = slice(start, start + link.avg_mean.size)
        start = part.stop
        link.avg_mean, link.avg_var = (
            link.device.send(values[part].reshape(shape).astype(dtype))
            for values in (means, variances)
        )
    return copied


def _differs(link, comm):
    if not isinstance(link, (L.BatchNormalization, MultiNodeBatchNormalization)):
        return False
    if isinstance(link, MultiNodeBatchNormalization):
        return True  # its running variance follows from the size of the local batch
    group = getattr(link, "comm", None)
    return group is None or group.size != comm.size
