"""Reduce one small vector over the ranks of a communicator; say where it went wrong.

All collectives of cross-GPU batch normalization are such all-reduces: of moments in the
forward pass, of sums in the backward pass. What is in host memory goes by MPI
(:mod:`host`); what is on a GPU by NCCL, staged in host memory, or by an MPI library
that takes it as it is (:mod:`device`, chosen by :mod:`choice`). Communicators that have
no ``mpi_comm`` do it by their ``allreduce`` (:mod:`foreign`).
"""

import functools
import weakref

from chainer import backend

from chainer_crossbn import kernels
from chainer_crossbn.collectives import choice, device, foreign
from chainer_crossbn.collectives.host import HostChannel
from chainer_crossbn.collectives.layer_names import LayerNames, Lineage
from chainer_crossbn.collectives.limits import timeout, yield_core
from chainer_crossbn.errors import CollectiveError

__all__ = [
    "CollectiveError",
    "choose",
    "merge_moments",
    "name_layer",
    "observe",
    "sum_over_ranks",
    "timeout",
    "yield_core",
]

choose = choice.choose

_names_without_mpi = weakref.WeakKeyDictionary()


def sum_over_ranks(comm, vector, layer):
    """Sum a vector over all ranks of a communicator.

    Args:
        comm: ChainerMN communicator. One with ``mpi_comm`` is waited for with a time
            limit and checked for the order of layers before each sum. Of any other the
            ``allreduce`` is called, and the order is checked by what comes back.
        vector: float64 array of shape (m,), on CPU or GPU.
        layer: A string that names the layer and the direction, equal on all ranks.

    Returns:
        float64 array of shape (m,), on the device of ``vector``, equal on all ranks.

    Raises:
        CollectiveError: If the ranks did not all reach the same layer in the same
            direction with the same size, or if one did not come in time; on GPUs, by
            NCCL, it may be raised as late as two iterations after. Where there is no
            ``mpi_comm``, other sizes and absent ranks are not seen.
        ValueError: If ``CHAINER_CROSSBN_TIMEOUT`` is not a positive number, or
            ``CHAINER_CROSSBN_COLLECTIVE`` not the name of a way.
    """
    if comm.size == 1:
        return vector
    on_gpu = kernels.on_gpu(vector)
    if not hasattr(comm, "mpi_comm"):
        total = foreign.sum_over_ranks(comm, _to_host(vector), layer)
        return backend.get_device_from_array(vector).send(total)
    if on_gpu:
        return _gpu_channel(comm.mpi_comm, vector.size, layer).sum(vector, layer)
    return _host_channel(comm.mpi_comm).sum(comm.mpi_comm, vector, layer)


def merge_moments(comm, count, mean, m2, layer):
    """Merge the moments of the mini-batches of all ranks of a communicator.

    Where the communicator has an ``mpi_comm`` and vectors go by host memory, pairs are
    merged inside the all-reduce (:func:`.array_api.merge`), and the
    relative error of ``m2`` is some 1e-16 * mean / std. Else the all-reduce sums
    ``[n, n * mean, m2 + n * mean**2]``, with an error of some 1e-16 * (mean / std)**2.

    Args:
        comm: As for :func:`sum_over_ranks`.
        count (int): Elements of a channel on this rank, 0 if it has none.
        mean: float64 array of shape (c,), their mean.
        m2: float64 array of shape (c,), the sum of their squared deviations.
        layer: As for :func:`sum_over_ranks`.

    Returns:
        tuple: count, mean and m2 of the global batch, equal on all ranks. The count is
        an int or, where nothing has come to the host, an array of shape () on the GPU.

    Raises:
        CollectiveError, ValueError: As :func:`sum_over_ranks`.
    """
    if comm.size == 1:
        return count, mean, m2
    if not hasattr(comm, "mpi_comm"):
        back = backend.get_device_from_array(mean).send
        vectors = _to_host(mean), _to_host(m2)
        count, mean, m2 = foreign.merge_moments(comm, count, *vectors, layer)
        return count, back(mean), back(m2)
    if kernels.on_gpu(mean):
        channel = _gpu_channel(comm.mpi_comm, 2 * mean.size + 1, layer)
        return channel.merge(count, mean, m2, layer)
    channel = _host_channel(comm.mpi_comm)
    return channel.merge(comm.mpi_comm, count, mean, m2, layer)


def observe(comm, note):
    """Have it noted when this rank starts and ends each collective of a communicator.

    Those by NCCL are not noted, as the host does not wait for them.

    Args:
        comm: ChainerMN communicator with ``mpi_comm``, which others may share.
        note (callable): Takes the start and the end, in seconds of
            :func:`time.perf_counter`.
    """
    _host_channel(comm.mpi_comm).note = note


def name_layer(comm, label: str, lineage: Lineage) -> str:
    """Return a name for a layer that no other layer of a communicator has.

    Args:
        comm: As for :func:`sum_over_ranks`.
        label (str): What the name begins with, equal on all ranks.
        lineage (tuple of int): See :func:`.layer_names.new_lineage`.

    Returns:
        str: The same on all ranks, if they first ask for the names of their layers in
        the same order.
    """
    if hasattr(comm, "mpi_comm"):
        names = _attribute(comm.mpi_comm, "names", lambda mpi_comm: LayerNames())
    else:
        names = _names_without_mpi.setdefault(comm, LayerNames())
    return names.name(label, lineage)


def _to_host(vector):
    return backend.CpuDevice().send(vector)


@functools.cache
def _keyvals():
    # Imported here, as importing it starts MPI.
    from mpi4py import MPI

    return {name: MPI.Comm.Create_keyval() for name in ("host", "gpu", "names")}


def _host_channel(mpi_comm):
    """Return the channel of an MPI communicator, which ChainerMN's may share."""
    return _attribute(mpi_comm, "host", HostChannel)


def _gpu_channel(mpi_comm, *first):
    return _attribute(mpi_comm, "gpu", _make_gpu_channel, *first)


def _attribute(mpi_comm, name, make, *first):
    keyval = _keyvals()[name]
    channel = mpi_comm.Get_attr(keyval)
    if channel is None:
        channel = make(mpi_comm, *first)
        mpi_comm.Set_attr(keyval, channel)
    return channel


def _make_gpu_channel(mpi_comm, size, layer):
    # What follows has no time limit.
    _host_channel(mpi_comm).meet(layer, size)
    way = choice.choose(mpi_comm)
    if way == choice.STAGED:
        return device.StagedChannel(mpi_comm, _host_channel(mpi_comm))
    all_reduces = {choice.NCCL: device.by_nccl, choice.MPI: device.by_mpi}
    return device.DeviceChannel(mpi_comm, all_reduces[way](mpi_comm))
