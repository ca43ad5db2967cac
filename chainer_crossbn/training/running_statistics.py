"""Combine the running statistics of ranks that each have their own (normalBN)."""

import math

import chainer
import chainer.links as L
import numpy
from chainer import backend
from chainermn.links import MultiNodeBatchNormalization

from chainer_crossbn.functions.cross_batch_normalization import mixture


def averaged(model: chainer.Link, comm, between: bool = True) -> chainer.Link:
    """Return the model with the mean of the ranks' running statistics.

    If each rank has its own statistics (normalBN), the mixture of their distributions
    has the mean of the means and, as variance, the mean of ``var + mean**2`` minus the
    square of that mean. Virtual ranks count as ranks. The model stays as it is.

    All ranks must call it together.

    Args:
        model (chainer.Link): Any model.
        comm: ChainerMN communicator.
        between (bool): Whether the variance includes that of the means between the
            ranks; without, it is the mean of the variances.

    Returns:
        chainer.Link: A copy that shares the parameters, or ``model`` itself if all
        ranks have the same statistics.
    """

    def over_ranks(means, variances):
        mean, var = mixture(means, variances, between)
        square = var + mean * mean if between else var
        # In host memory, as MPI may be unable to read that of GPUs.
        total = comm.allreduce(numpy.concatenate([mean, square])) / comm.size
        mean, square = numpy.split(total, 2)
        return mean, numpy.maximum(square - mean * mean, 0) if between else square

    return _with_statistics(model, comm, over_ranks)


def of_rank_zero(model: chainer.Link, comm) -> chainer.Link:
    """Return the model with the running statistics of rank 0, the first virtual one.

    All ranks must call it together.

    Args:
        model (chainer.Link): Any model.
        comm: ChainerMN communicator.

    Returns:
        chainer.Link: As :func:`averaged` returns it.
    """

    def from_rank_zero(means, variances):
        return comm.bcast_obj((means[0], variances[0]) if comm.rank == 0 else None)

    return _with_statistics(model, comm, from_rank_zero)


def _with_statistics(model, comm, combine):
    """Return a copy of a model with combined running statistics.

    Args:
        combine (callable): Takes means and variances of a process, two float64 arrays
            of shape (groups of virtual ranks, values), and returns those of the copy,
            of shape (values,).
    """
    if not any(_differs(link, comm) for link in model.links()):
        return model
    copied = model.copy()
    links = [link for link in copied.links() if _differs(link, comm)]
    # Links may divide the virtual ranks into different numbers of groups.
    n_groups = max(_n_groups(link) for link in links)
    means, variances = (
        numpy.concatenate([_by_group(link, name, n_groups) for link in links], axis=1)
        for name in ("avg_mean", "avg_var")
    )
    means, variances = combine(means, variances)
    start = 0
    for link in links:
        dtype = link.avg_mean.dtype
        shape = link.avg_mean.shape
        if _n_groups(link) > 1:
            shape = shape[1:]
            link.virtual_ranks = link.virtual_group_size = 1
        part = slice(start, start + math.prod(shape))
        start = part.stop
        link.avg_mean, link.avg_var = (
            link.device.send(values[part].reshape(shape).astype(dtype))
            for values in (means, variances)
        )
    return copied


def _by_group(link, name, n_groups):
    """Return running statistics of a link, float64 of shape (n_groups, values)."""
    values = backend.CpuDevice().send(getattr(link, name)).astype(numpy.float64)
    groups = _n_groups(link)
    return values.reshape(groups, -1).repeat(n_groups // groups, axis=0)


def _n_groups(link):
    return getattr(link, "n_groups", 1)


def _differs(link, comm):
    if not isinstance(link, (L.BatchNormalization, MultiNodeBatchNormalization)):
        return False
    if _n_groups(link) > 1:
        return True
    if comm.size == 1:
        return False
    if isinstance(link, MultiNodeBatchNormalization):
        return True  # its running variance depends on the size of the local batch
    group = getattr(link, "comm", None)
    return group is None or group.size != comm.size
