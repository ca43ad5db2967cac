"""The components of the time of training iterations."""

from typing import Any, NamedTuple

import numpy

from chainer_crossbn.profiling.recorder import Layout, Step

COMPONENTS = (
    "data",
    "forward",
    "backward",
    "BN arithmetic",
    "BN wait",
    "BN transfer",
    "all-reduce wait",
    "all-reduce transfer",
    "update",
    "evaluation",
    "other",
)
OF_LAYERS = ("forward", "backward", "wait", "transfer")


class Iteration(NamedTuple):
    """An iteration of a rank; times in seconds.

    Attributes:
        step (Step): Its training step.
        wall (float): From the end of the previous iteration to its own.
        evaluation (float): The part of it that is evaluation.
        bn_wait (array): float64, shape (m,): until the last rank reaches each
            collective of the step.
        bn_transfer (array): float64, shape (m,): from then to the collective's end.
        all_reduce_wait, all_reduce_transfer (float): The same for the all-reduce of the
            gradients.
    """

    step: Step
    wall: float
    evaluation: float
    bn_wait: numpy.ndarray
    bn_transfer: numpy.ndarray
    all_reduce_wait: float
    all_reduce_transfer: float


def split_collectives(
    mpi_comm: Any, spans: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Split collectives into waiting for the slowest rank and transfer.

    Args:
        mpi_comm (mpi4py.MPI.Comm): The ranks of the collectives; all call it together.
        spans: float64 array of shape (n, 2), starts and ends of this rank's
            collectives, in seconds of a clock that the ranks share.

    Returns:
        tuple: Two float64 arrays of shape (n,), in seconds: until the last rank
        arrives, and from then to the end.

    Raises:
        ValueError: If the ranks made different numbers of collectives.
    """
    starts = mpi_comm.allgather(spans[:, 0])
    if len({len(s) for s in starts}) > 1:
        raise ValueError("the ranks made different numbers of collectives")
    last = numpy.max(starts, axis=0)
    wait = numpy.clip(numpy.minimum(spans[:, 1], last) - spans[:, 0], 0, None)
    return wait, spans[:, 1] - spans[:, 0] - wait


def components(iteration: Iteration) -> numpy.ndarray:
    """Return the components of the time of an iteration.

    Args:
        iteration (Iteration): Of one rank.

    Returns:
        float64 array of shape (11,): Seconds, in the order of ``COMPONENTS``; their
        sum is the iteration's wall time.
    """
    step = iteration.step
    layout = step.layout
    seconds = step.functions[:, 1] - step.functions[:, 0]
    bn_forward = seconds[layout.normalizes & ~layout.backward].sum()
    bn_backward = seconds[layout.normalizes & layout.backward].sum()
    wait, transfer = iteration.bn_wait.sum(), iteration.bn_transfer.sum()
    data, forward, backward, update, _ = numpy.diff(step.phases)
    all_reduce = iteration.all_reduce_wait + iteration.all_reduce_transfer
    known = (
        data,
        forward - bn_forward,
        backward - bn_backward,
        bn_forward + bn_backward - wait - transfer,
        wait,
        transfer,
        iteration.all_reduce_wait,
        iteration.all_reduce_transfer,
        update - all_reduce,
        iteration.evaluation,
    )
    return numpy.array((*known, iteration.wall - sum(known)))


def by_layer(iterations: list[Iteration]) -> dict[str, numpy.ndarray]:
    """Return the mean time of each layer in an iteration.

    Args:
        iterations (list of Iteration): Of one rank.

    Returns:
        dict: From the path of a layer to a float64 array of shape (4,): seconds, in the
        order of ``OF_LAYERS``; forward and backward without waiting and transfer.
    """
    totals: dict[int, tuple[Layout, numpy.ndarray]] = {}
    for iteration in iterations:
        step = iteration.step
        n = len(step.functions)
        times = step.functions[:, 1] - step.functions[:, 0]
        waits = numpy.bincount(step.parts, iteration.bn_wait, n)
        transfers = numpy.bincount(step.parts, iteration.bn_transfer, n)
        # The steps of an epoch share one or two layouts.
        _, total = totals.setdefault(
            id(step.layout), (step.layout, numpy.zeros((3, n)))
        )
        total += times, waits, transfers
    layers: dict[str, numpy.ndarray] = {}
    for layout, (times, waits, transfers) in totals.values():
        own = times - waits - transfers
        rows = numpy.stack(
            [own * ~layout.backward, own * layout.backward, waits, transfers], axis=1
        )
        for layer, row in zip(layout.layers, rows / len(iterations)):
            layers[layer] = layers.get(layer, 0) + row
    return layers
