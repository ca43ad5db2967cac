"""Conversion of the ranks' clocks to that of rank 0.

A rank asks rank 0 for its time. The answer is the time in the middle of the round trip,
with an uncertainty of half of its length (Cristian, "Probabilistic clock
synchronization", 1989). The shortest of many round trips is used.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from chainer_crossbn.collectives import yield_core

_ROUND_TRIPS = 30
_TAG = 0x4350
_NAP = 2e-3


class Reading(NamedTuple):
    """A comparison of this rank's clock with that of rank 0.

    Attributes:
        here (float): Seconds of this rank's clock.
        offset (float): Seconds by which rank 0's clock is ahead.
        uncertainty (float): Largest error of ``offset`` in seconds.
    """

    here: float
    offset: float
    uncertainty: float


def read(mpi_comm: Any, clock: Callable[[], float] = time.perf_counter) -> Reading:
    """Compare this rank's clock with rank 0's; all ranks call it together.

    Args:
        mpi_comm (mpi4py.MPI.Comm): The ranks.
        clock (callable): Returns this rank's time in seconds.

    Returns:
        Reading: On rank 0 its offset is 0.
    """
    if mpi_comm.rank == 0:
        for rank in range(1, mpi_comm.size):
            _answer(mpi_comm, rank, clock)
        return Reading(clock(), 0.0, 0.0)
    # Leaves the cores to the ranks whose turn it is.
    while not mpi_comm.iprobe(0, _TAG):
        time.sleep(_NAP)
    mpi_comm.recv(source=0, tag=_TAG)
    return min(
        (_ask(mpi_comm, clock) for _ in range(_ROUND_TRIPS)),
        key=lambda reading: reading.uncertainty,
    )


def _answer(mpi_comm, rank, clock):
    mpi_comm.send(None, rank, _TAG)
    for _ in range(_ROUND_TRIPS):
        _receive(mpi_comm, rank)
        mpi_comm.send(clock(), rank, _TAG)


def _receive(mpi_comm, source):
    # MPI itself would occupy a core that the other rank may need.
    while not mpi_comm.iprobe(source, _TAG):
        yield_core()
    return mpi_comm.recv(source=source, tag=_TAG)


def _ask(mpi_comm, clock):
    started = clock()
    mpi_comm.send(None, 0, _TAG)
    there = _receive(mpi_comm, 0)
    ended = clock()
    here = (started + ended) / 2
    return Reading(here, there - here, (ended - started) / 2)


def to_rank_zero(
    times: numpy.ndarray, before: Reading, after: Reading
) -> numpy.ndarray:
    """Convert times of this rank's clock to rank 0's.

    The drift between two readings is assumed to be constant.

    Args:
        times: float64 array of any shape, seconds of this rank's clock.
        before (Reading): The earlier reading.
        after (Reading): The later one.

    Returns:
        float64 array of the same shape.
    """
    drift = (after.offset - before.offset) / max(after.here - before.here, 1e-9)
    return times + before.offset + drift * (times - before.here)
