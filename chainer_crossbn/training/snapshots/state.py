"""Collect and restore the state of a run: a shared part, and one part per rank.

The part of a rank has the running statistics and other persistent values of its model,
the sums that it has not reported yet, and the state of its random numbers on the CPU.
CuPy does not provide that of GPUs, where dropout starts over after a resume. Each
virtual rank has a part, so a run can be resumed with its ranks on another number of
processes.
"""

import itertools
from typing import Optional

import chainer
import numpy
from chainer.serializers import DictionarySerializer, NpzDeserializer

from chainer_crossbn.functions.cross_batch_normalization import mixture
from chainer_crossbn.training.updaters import persistent_values

SHARED = "shared"

# In a trainer with a GlobalUpdater.
_MODEL = "updater/model:main/"
_SUMS = "updater/sums"
# In the part of a rank.
_OWN = "model/"


def collect(trainer: chainer.training.Trainer, comm) -> Optional[dict[str, dict]]:
    """Gather the state of all ranks; all call it together.

    Args:
        trainer (chainer.training.Trainer): Of a
            :class:`~chainer_crossbn.training.updaters.GlobalUpdater`.
        comm: ChainerMN communicator.

    Returns:
        dict or None: On rank 0 the parts of a snapshot: ``shared``, and ``rank-N`` for
        each rank. Arrays of the model are not copied.
    """
    updater = trainer.updater
    model = updater.get_optimizer("main").target
    processes = comm.gather_obj(_parts_of_process(updater, model))
    if comm.rank:
        return None
    serializer = DictionarySerializer()
    serializer.save(trainer)
    owned = {_SUMS, *(_MODEL + key for key in persistent_values(model))}
    shared = {k: v for k, v in serializer.target.items() if k not in owned}
    parts = itertools.chain.from_iterable(processes)
    return {SHARED: shared, **{f"rank-{i}": part for i, part in enumerate(parts)}}


def _parts_of_process(updater, model):
    """Return the part of each rank of this process, a list of dict."""
    values = persistent_values(model)
    grouped = _grouped_statistics(model)
    states = updater.dropout.states()
    parts = []
    for rank in range(updater.dropout.n_ranks):
        own = dict(values)
        for key, group_size in grouped.items():
            own[key] = values[key][rank // group_size]
        part = {_OWN + key: value for key, value in own.items()}
        if states is not None:
            part.update(_as_arrays(states[rank]))
        # The process has one sum.
        part["sums"] = updater.sums if rank == 0 else numpy.zeros_like(updater.sums)
        parts.append(part)
    return parts


def _grouped_statistics(model):
    """Return the names of running statistics that a process has several of.

    Returns:
        dict: From the name that serializers use to the number of virtual ranks that
        share statistics. The first axis of the array is that of the groups.
    """
    return {
        f"{path[1:]}/{name}".lstrip("/"): link.virtual_group_size
        for path, link in model.namedlinks()
        if getattr(link, "n_groups", 1) > 1
        for name in ("avg_mean", "avg_var")
    }


def size_of(model: chainer.Link) -> int:
    """Return the approximate bytes of a snapshot: parameters and their momentum."""
    return 2 * sum(
        parameter.size * parameter.dtype.itemsize for parameter in model.params()
    )


def restore(
    parts: Optional[dict[str, dict]], trainer: chainer.training.Trainer, comm
) -> bool:
    """Restore the state of a snapshot on all ranks; all call it together.

    If it was taken on another number of ranks, all get the average of the running
    statistics, and random numbers are not restored.

    Args:
        parts (dict or None): On rank 0 as from :func:`collect`.
        trainer (chainer.training.Trainer): As for :func:`collect`, before it runs.
        comm: ChainerMN communicator.

    Returns:
        bool: Whether the snapshot fits; if not, the state is undefined.
    """
    parts = comm.bcast_obj(parts)
    shared = parts[SHARED]
    ranks = [parts[f"rank-{i}"] for i in range(len(parts) - 1)]
    updater = trainer.updater
    n_own = updater.dropout.n_ranks
    grouped = _grouped_statistics(updater.get_optimizer("main").target)
    try:
        if len(ranks) == comm.size * n_own:
            own = ranks[comm.rank * n_own : (comm.rank + 1) * n_own]
            values = _persistent(own[0])
            for key, group_size in grouped.items():
                firsts = own[::group_size]
                values[key] = numpy.stack([part[_OWN + key] for part in firsts])
            sums = sum(part["sums"] for part in own)
            _set_random_states(updater.dropout, own)
        else:
            values = _average(ranks)
            for key, group_size in grouped.items():
                values[key] = numpy.stack([values[key]] * (n_own // group_size))
            sums = sum(rank["sums"] for rank in ranks) * (comm.rank == 0)
        values = {_MODEL + key: value for key, value in values.items()}
        NpzDeserializer({**shared, **values, _SUMS: sums}).load(trainer)
        fits = True
    except (KeyError, ValueError, TypeError):
        fits = False
    return all(comm.mpi_comm.allgather(fits))


def _persistent(own):
    return {k[len(_OWN) :]: v for k, v in own.items() if k.startswith(_OWN)}


def _average(ranks):
    """Return the persistent values of a model, averaged over ranks.

    Running statistics are averaged as by :func:`.running_statistics.averaged`, other
    values are those of rank 0.
    """
    values = _persistent(ranks[0])
    for key in [key for key in values if key.endswith("avg_mean")]:
        key_of_var = key.removesuffix("mean") + "var"
        means, variances = (
            numpy.array([rank[_OWN + k] for rank in ranks], numpy.float64)
            for k in (key, key_of_var)
        )
        if (means == means[0]).all() and (variances == variances[0]).all():
            continue
        mean, var = mixture(means, variances)
        values[key] = mean.astype(values[key].dtype)
        values[key_of_var] = var.astype(values[key_of_var].dtype)
    return values


def _as_arrays(state):
    """Return the state of a :class:`numpy.random.RandomState` as named arrays."""
    _, key, position, has_gauss, gauss = state
    return {
        "random/key": key,
        "random/position": numpy.array([position, has_gauss]),
        "random/gauss": numpy.array(gauss),
    }


def _set_random_states(dropout, own):
    if dropout.states() is not None and all("random/key" in part for part in own):
        dropout.set_states([_as_state(part) for part in own])


def _as_state(part):
    position, has_gauss = part["random/position"].tolist()
    gauss = float(part["random/gauss"])
    return "MT19937", part["random/key"], position, has_gauss, gauss
