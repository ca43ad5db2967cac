"""Reduce one small vector over the ranks of a communicator.

All collectives of cross-GPU batch normalization are such all-reduces: of moments in the
forward pass, of sums in the backward pass. Each is checked for the order in which the
ranks reach the layers (:mod:`order`), by the names of these (:mod:`layer_names`).
Vectors in host memory are reduced by shared memory or MPI (:mod:`host`); those on a GPU
by NCCL, in host memory, or by an MPI library that takes addresses on GPUs
(:mod:`device`, as :mod:`choice` decides). A communicator without ``mpi_comm`` reduces
by its ``allreduce`` (:mod:`without_mpi`).
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

from chainer_crossbn import kernels
from chainer_crossbn.collectives import choice, device
from chainer_crossbn.collectives.choice import choose
from chainer_crossbn.collectives.host import HostChannel
from chainer_crossbn.collectives.layer_names import LayerNames, Lineage
from chainer_crossbn.collectives.limits import timeout, yield_core
from chainer_crossbn.collectives.without_mpi import AllreduceChannel
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

_names_without_mpi: weakref.WeakKeyDictionary[Any, LayerNames] = (
    weakref.WeakKeyDictionary()
)


def sum_over_ranks(comm, vector, layer: str):
    """Sum a vector over all ranks of a communicator.

    Args:
        comm: ChainerMN communicator. With ``mpi_comm``, the order of layers is checked
            before each sum, and there is a time limit. Without, ``allreduce`` is
            called, and the order is checked by its result.
        vector: float64 array of shape (m,), on CPU or GPU.
        layer (str): Names the layer and the direction, equal on all ranks.

    Returns:
        float64 array of shape (m,), on the device of ``vector``, equal on all ranks.

    Raises:
        CollectiveError: If the ranks did not all reach the same layer in the same
            direction with the same size, or if one did not come in time. On GPUs, with
            NCCL, it may be raised up to two iterations later. Without ``mpi_comm``,
            other sizes and absent ranks are not detected.
        ValueError: If ``CHAINER_CROSSBN_TIMEOUT`` is not a positive number, or
            ``CHAINER_CROSSBN_COLLECTIVE`` is not supported.
    """
    if comm.size == 1:
        return vector
    return _channel(comm, vector, vector.size, layer).sum(vector, layer)


def merge_moments(comm, count: int, mean, m2, layer: str) -> tuple:
    """Merge the moments of the mini-batches of all ranks of a communicator.

    In host memory, pairs are merged inside the all-reduce (:func:`.array_api.merge`),
    and the relative error of ``m2`` is some 1e-16 * mean / std. With NCCL, or without
    ``mpi_comm``, the all-reduce sums ``[n, n * mean, m2 + n * mean**2]``, with an error
    of some 1e-16 * (mean / std)**2.

    Args:
        comm: As for :func:`sum_over_ranks`.
        count (int): Elements of a channel on this rank, 0 if it has none.
        mean: float64 array of shape (c,), their mean.
        m2: float64 array of shape (c,), the sum of their squared deviations.
        layer (str): As for :func:`sum_over_ranks`.

    Returns:
        tuple: count, mean and m2 of the global batch, equal on all ranks. The count is
        an int or, if nothing is copied to the host, an array of shape () on the GPU.

    Raises:
        CollectiveError, ValueError: As :func:`sum_over_ranks`.
    """
    if comm.size == 1:
        return count, mean, m2
    channel = _channel(comm, mean, 2 * mean.size + 1, layer)
    return channel.merge(count, mean, m2, layer)


def observe(comm, observer: Callable[[float, float], None]) -> None:
    """Call a function after each collective of this rank on a communicator.

    Collectives by NCCL are left out, as the host does not wait for them.

    Args:
        comm: ChainerMN communicator with ``mpi_comm``.
        observer (callable): Takes the start and the end, in seconds of
            :func:`time.perf_counter`.
    """
    _host_channel(comm.mpi_comm).observe(observer)


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
    mpi_comm = getattr(comm, "mpi_comm", comm)
    if hasattr(mpi_comm, "Get_attr"):  # also mpi4py's, which can't be hashed
        names = _cached(mpi_comm, "names", LayerNames)
    else:
        names = _names_without_mpi.setdefault(comm, LayerNames())
    return names.name(label, lineage)


def _channel(comm, array, size, layer):
    """Return what reduces vectors that are where an array is."""
    if not hasattr(comm, "mpi_comm"):
        return AllreduceChannel(comm)
    mpi_comm = comm.mpi_comm
    if not kernels.on_gpu(array):
        return _host_channel(mpi_comm)
    return _cached(mpi_comm, "gpu", lambda: _new_gpu_channel(mpi_comm, size, layer))


def _host_channel(mpi_comm):
    return _cached(mpi_comm, "host", lambda: HostChannel(mpi_comm))


def _new_gpu_channel(mpi_comm, size, layer):
    # What follows has no time limit.
    _host_channel(mpi_comm).meet(layer, size)
    transport = choice.choose(mpi_comm)
    if transport == choice.STAGED:
        return device.StagedChannel(_host_channel(mpi_comm))
    all_reduces = {
        choice.NCCL: device.nccl_all_reduce,
        choice.MPI: device.mpi_all_reduce,
    }
    return device.DeviceChannel(mpi_comm, all_reduces[transport](mpi_comm))


@functools.cache
def _keyvals():
    # Imported here, as importing it starts MPI.
    from mpi4py import MPI

    return {name: MPI.Comm.Create_keyval() for name in ("host", "gpu", "names")}


def _cached(mpi_comm, name, create):
    """Return an attribute of an MPI communicator, which ChainerMN's may share."""
    keyval = _keyvals()[name]
    value = mpi_comm.Get_attr(keyval)
    if value is None:
        value = create()
        mpi_comm.Set_attr(keyval, value)
    return value
