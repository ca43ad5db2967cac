"""What a snapshot holds: the state that all ranks share, and what each has of its own.

A rank's own are the running statistics and other persistent values of its model, the
sums that it has yet to report, and its random numbers on the CPU. CuPy does not tell
the state of its random numbers, so where a model drops units on GPUs, resumed ranks
drop others. Each of the virtual ranks of a process has a part of its own, so that a run
can be resumed with its ranks on another number of processes.
"""

import numpy
from chainer.serializers import DictionarySerializer, NpzDeserializer
from mpi4py import MPI

from chainer_crossbn.training.updaters import persistent_values

SHARED = "shared"

# In a trainer with a GlobalUpdater.
_MODEL = "updater/model:main/"
_SUMS = "updater/sums"
# In what a rank has of its own.
_OWN = "model/"
# Larger arrays are broadcast without a copy.
_SMALL_BYTES = 1 << 16


def collect(trainer, comm):
    """Gather the state of all ranks, which call this together.

    Args:
        trainer (chainer.training.Trainer): Of a
            :class:`~chainer_crossbn.training.updaters.GlobalUpdater`.
        comm: ChainerMN communicator.

    Returns:
        dict or None: On rank 0 the parts of a snapshot: ``shared``, and ``rank-N`` for
        each rank. These refer to the arrays of the model, not to copies.
    """
    updater = trainer.updater
    model = updater.get_optimizer("main").target
    ranks = comm.gather_obj(_of_virtual_ranks(updater, model))
    if comm.rank:
        return None
    serializer = DictionarySerializer()
    serializer.save(trainer)
    owned = {_SUMS, *(_MODEL + key for key in persistent_values(model))}
    shared = {k: v for k, v in serializer.target.items() if k not in owned}
    parts = [part for of_process in ranks for part in of_process]
    return {SHARED: shared, **{f"rank-{i}": part for i, part in enumerate(parts)}}


def _of_virtual_ranks(updater, model):
    """Return what each rank of this process has of its own, as a list of dict."""
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
        # The sums are of the process.
        part["sums"] = updater.sums if rank == 0 else numpy.zeros_like(updater.sums)
        parts.append(part)
    return parts


def _grouped_statistics(model):
    """Return the names of running statistics of which a process has several.

    Returns:
        dict: From the name that serializers use to the number of virtual ranks that
        share statistics; the first axis of the array are the groups of these.
    """
    return {
        f"{path[1:]}/{name}".lstrip("/"): link.virtual_group_size
        for path, link in model.namedlinks()
        if getattr(link, "n_groups", 1) > 1
        for name in ("avg_mean", "avg_var")
    }


def size_of(model):
    """Return how many bytes a snapshot takes, about: parameters and their momentum."""
    return 2 * sum(parameter.array.nbytes for parameter in model.params())


def restore(parts, trainer, comm):
    """Bring all ranks to the state of a snapshot; they call this together.

    Where it was taken on another number of ranks, all get the average of the running
    statistics, and the random numbers go on from where they are.

    Args:
        parts (dict or None): On rank 0 as :func:`collect` returns it.
        trainer (chainer.training.Trainer): As for :func:`collect`, before it runs.
        comm: ChainerMN communicator.

    Returns:
        bool: Whether the snapshot fits; if not, the state is undefined.
    """
    shared, ranks = _share(parts, comm)
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


def _share(parts, comm):
    """Return the shared state and all ranks' own, on every rank."""
    world = comm.mpi_comm
    large, rest, ranks = {}, None, None
    if comm.rank == 0:
        shared = parts[SHARED]
        large = {k: v for k, v in shared.items() if v.nbytes > _SMALL_BYTES}
        rest = {k: v for k, v in shared.items() if k not in large}
        ranks = [parts[f"rank-{i}"] for i in range(len(parts) - 1)]
    shapes = world.bcast([(k, v.shape, v.dtype) for k, v in large.items()])
    for key, shape, dtype in shapes:
        array = large[key] if comm.rank == 0 else numpy.empty(shape, dtype)
        large[key] = numpy.asarray(array, order="C")
        # As bytes, since MPI has no type for text, such as the log, and float16.
        world.Bcast([large[key], MPI.BYTE])
    rest, ranks = world.bcast((rest, ranks))
    return {**large, **rest}, ranks


def _persistent(own):
    return {k[len(_OWN) :]: v for k, v in own.items() if k.startswith(_OWN)}


def _average(ranks):
    """Return the persistent values of a model, averaged over ranks.

    Running statistics as :func:`.running_statistics.averaged` does; all
    else is that of rank 0.
    """
    values = _persistent(ranks[0])
    for key in [key for key in values if key.endswith("avg_mean")]:
        of_variance = key[: -len("mean")] + "var"
        means, variances = (
            numpy.array([rank[_OWN + k] for rank in ranks], numpy.float64)
            for k in (key, of_variance)
        )
        if (means == means[0]).all() and (variances == variances[0]).all():
            continue
        mean = means.mean(axis=0)
        var = numpy.maximum((variances + means**2).mean(axis=0) - mean**2, 0)
        values[key] = mean.astype(values[key].dtype)
        values[of_variance] = var.astype(values[of_variance].dtype)
    return values


def _as_arrays(state):
    """Return a state of :class:`numpy.random.RandomState` as arrays by name."""
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
