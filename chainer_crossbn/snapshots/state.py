"""What a snapshot holds: the state that all ranks share, and what each has of its own.

A rank's own are the running statistics and other persistent values of its model, the
sums that it has yet to report, and its random numbers on the CPU. CuPy does not tell
the state of its random numbers, so where a model drops units on GPUs, resumed ranks
drop others.
"""

import numpy
from chainer.serializers import DictionarySerializer, NpzDeserializer
from mpi4py import MPI

from chainer_crossbn.updaters import persistent_values

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
            :class:`~chainer_crossbn.updaters.GlobalUpdater`.
        comm: ChainerMN communicator.

    Returns:
        dict or None: On rank 0 the parts of a snapshot: ``shared``, and ``rank-N`` for
        each rank. These refer to the arrays of the model, not to copies.
    """
    updater = trainer.updater
    model = updater.get_optimizer("main").target
    own = {
        **{_OWN + key: v for key, v in persistent_values(model).items()},
        **_random_state(),
        "sums": updater.sums,
    }
    ranks = comm.gather_obj(own)
    if comm.rank:
        return None
    serializer = DictionarySerializer()
    serializer.save(trainer)
    owned = {_SUMS, *(_MODEL + key for key in persistent_values(model))}
    shared = {k: v for k, v in serializer.target.items() if k not in owned}
    return {SHARED: shared, **{f"rank-{i}": part for i, part in enumerate(ranks)}}


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
    try:
        if len(ranks) == comm.size:
            own = ranks[comm.rank]
            values, sums = _persistent(own), own["sums"]
            _set_random_state(own)
        else:
            values = _average(ranks)
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

    Running statistics as :func:`chainer_crossbn.running_statistics.averaged` does; all
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


def _random_state():
    _, key, position, has_gauss, gauss = numpy.random.get_state()
    return {
        "random/key": key,
        "random/position": numpy.array([position, has_gauss]),
        "random/gauss": numpy.array(gauss),
    }


def _set_random_state(own):
    position, has_gauss = own["random/position"].tolist()
    gauss = float(own["random/gauss"])
    numpy.random.set_state(("MT19937", own["random/key"], position, has_gauss, gauss))
