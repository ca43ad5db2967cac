import numpy

from cupy._arrays import wrap

_state = numpy.random.RandomState()


def seed(seed=None):
    _state.seed(seed)


def rand(*size, dtype=float):
    return wrap(_state.rand(*size).astype(dtype))


def uniform(low=0.0, high=1.0, size=None, dtype=float):
    return wrap(_state.uniform(low, high, size).astype(dtype))


def normal(loc=0.0, scale=1.0, size=None, dtype=float):
    return wrap(_state.normal(loc, scale, size).astype(dtype))


class RandomState:
    def __init__(self, seed=None):
        self._state = numpy.random.RandomState(seed)

    def random_sample(self, size=None, dtype=float):
        return wrap(self._state.random_sample(size).astype(dtype))
