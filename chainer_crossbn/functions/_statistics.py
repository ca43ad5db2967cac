"""Where batch normalizations get their statistics: computed, recorded or replayed.

A block of a network is any link, so what it computes again cannot be an argument of its
normalizations. As :data:`chainer.config` does, a context tells them.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Callable, NamedTuple

import numpy


class Statistics(NamedTuple):
    """Statistics of one layer over all ranks.

    Attributes:
        n: Elements of a channel: a number or an array of shape (); ``None`` where
            several groups have counts of their own.
        mean: Array of shape (groups * c,).
        spread: Array of the same shape, which the function computes from: M2, or the
            variance.
    """

    n: int | numpy.ndarray | None
    mean: numpy.ndarray
    spread: numpy.ndarray


Compute = Callable[[], Statistics]
Record = tuple[str, Statistics]


class _Recording:
    """Adds statistics to a list, with the names of the layers."""

    def __init__(self, outer: _Recording | _Replaying | None, records: list[Record]):
        self._outer = outer
        self._records = records

    def get(self, layer: str, compute: Compute) -> Statistics:
        outer = self._outer
        statistics = compute() if outer is None else outer.get(layer, compute)
        self._records.append((layer, statistics))
        return statistics


class _Replaying:
    """Returns what was recorded, in the same order."""

    def __init__(self, records: list[Record]):
        self._records = iter(records)

    def get(self, layer: str, compute: Compute) -> Statistics:
        recorded_layer, statistics = next(self._records, (None, None))
        if statistics is None or layer != recorded_layer:
            raise RuntimeError(
                f"{layer} was not computed in this place the first time; a block that "
                "is recomputed must compute the same again"
            )
        return statistics


_source: contextvars.ContextVar[_Recording | _Replaying | None]
_source = contextvars.ContextVar("source of statistics", default=None)


def get(layer: str, compute: Compute) -> Statistics:
    """Return the statistics of a layer.

    Args:
        layer (str): Name of the layer.
        compute (callable): Computes them over all ranks. It is not called where they
            are replayed.

    Raises:
        RuntimeError: If those of another layer were recorded in this place.
    """
    source = _source.get()
    return compute() if source is None else source.get(layer, compute)


def record(records: list[Record]) -> contextlib.AbstractContextManager[None]:
    """Record the statistics of all layers that are computed in the context.

    Args:
        records (list): Gets the name and the statistics of each.
    """
    return _using(_Recording(_source.get(), records))


def replay(records: list[Record]) -> contextlib.AbstractContextManager[None]:
    """Return recorded statistics in the context, in the order in which they came."""
    return _using(_Replaying(records))


@contextlib.contextmanager
def _using(source: _Recording | _Replaying) -> Iterator[None]:
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)
