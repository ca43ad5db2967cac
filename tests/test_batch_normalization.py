"""The link on one rank beside chainer.links.BatchNormalization."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
from functools import partial

import chainer
import chainer.links as L
import chainermn
import numpy as np
import pytest
from chainer import gradient_check
from reference import error

from chainer_crossbn import CrossBatchNormalization, cross_batch_normalization


@pytest.fixture(scope="module")
def comm():
    return chainermn.create_communicator("naive")


def array(*shape, seed=0):
    return np.random.RandomState(seed).uniform(-1, 1, shape)


OPTIONS = [
    {},
    {"use_gamma": False},
    {"use_beta": False},
    {"use_gamma": False, "use_beta": False},
    {"decay": 0.5, "eps": 0.1},
    {"initial_gamma": 2, "initial_beta": -1},
    {"initial_avg_mean": 3, "initial_avg_var": 4},
    {"size": None, "axis": (0, 2, 3)},
    {"size": (4, 5), "axis": (0, 1)},
    {"size": (3, 4, 5), "axis": 0},
    {"size": 5, "axis": (0, 1, 2)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_takes_the_arguments_of_chainer(comm, options):
    options = {"size": 3, "dtype": np.float64, **options}
    links = [
        CrossBatchNormalization(comm=comm, **options),
        L.BatchNormalization(**options),
    ]
    results = []
    for link in links:
        x = chainer.Variable(array(6, 3, 4, 5))
        for _ in range(2):
            y = link(x)
        y.grad = array(*y.shape, seed=1)
        link.cleargrads()
        y.backward()
        with chainer.using_config("train", False):
            tested = link(x)
        arrays = {"y": y.array, "gx": x.grad, "tested": tested.array}
        arrays.update({name: p.array for name, p in link.namedparams()})
        arrays.update({f"g{name}": p.grad for name, p in link.namedparams()})
        arrays.update(mean=link.avg_mean, var=link.avg_var)
        results.append(arrays)
    ours, theirs = results
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert error(ours[name], value) < 1e-12, name


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_default_dtypes_are_those_of_chainer(comm, dtype):
    with chainer.using_config("dtype", dtype):
        ours, theirs = CrossBatchNormalization(3, comm), L.BatchNormalization(3)
        x = array(6, 3).astype(dtype)
        for link in (ours, theirs):
            assert link(x).dtype == dtype
    for name in ("gamma", "beta", "avg_mean", "avg_var"):
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype


def test_axis_must_ascend(comm):
    for make in (
        lambda axis: CrossBatchNormalization(3, comm, axis=axis),
        lambda axis: L.BatchNormalization(3, axis=axis),
    ):
        with pytest.raises(RuntimeError, match="ascending"):
            make((2, 0))(array(2, 3, 4))


@pytest.mark.parametrize("wrong", ["channels", "integers"])
def test_wrong_input_is_refused(comm, wrong):
    x = array(4, 2) if wrong == "channels" else np.ones((4, 3), np.int32)
    with pytest.raises(chainer.utils.type_check.InvalidType):
        CrossBatchNormalization(3, comm)(x)


SHAPES = [
    ((6, 3), None),
    ((4, 3, 2, 2), None),
    ((3, 4, 2), (0, 2)),
    ((2, 3, 4), (0, 1)),
]


@pytest.mark.parametrize("shape,axis", SHAPES)
class TestGradients:
    def case(self, shape, axis):
        kept = [i for i in range(len(shape)) if i not in (axis or (0, 2, 3))]
        channels = [shape[i] for i in kept]
        parameters = array(*channels, seed=1) + 2, array(*channels, seed=2)
        return (array(*shape), *parameters), array(*shape, seed=3)

    def test_first(self, comm, shape, axis):
        inputs, gy = self.case(shape, axis)
        gradient_check.check_backward(
            partial(cross_batch_normalization, comm=comm, axis=axis),
            inputs,
            gy,
            dtype=np.float64,
            rtol=1e-5,
            atol=1e-5,
        )

    def test_second(self, comm, shape, axis):
        inputs, gy = self.case(shape, axis)
        gradient_check.check_double_backward(
            partial(cross_batch_normalization, comm=comm, axis=axis),
            inputs,
            gy,
            tuple(array(*v.shape, seed=4) for v in inputs),
            dtype=np.float64,
            rtol=1e-4,
            atol=1e-4,
        )
