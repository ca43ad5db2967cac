"""The link on one rank beside chainer.links.BatchNormalization."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
from functools import partial

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest
from chainer import gradient_check
from reference import error

from chainer_crossbn import CrossBatchNormalization, cross_batch_normalization
from chainer_crossbn.links import PaperBatchNormalization


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


def with_relu(comm, *inputs, **options):
    return cross_batch_normalization(*inputs, comm, relu=True, **options)


def then_relu(comm, *inputs, **options):
    return F.relu(cross_batch_normalization(*inputs, comm, **options))


@pytest.mark.parametrize("order", ["channels first", "channels last"])
@pytest.mark.parametrize("shape", [(6, 3), (5, 70, 3, 4), (300, 4, 1, 1), (2, 1, 9, 9)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_relu_inside_gives_the_same_numbers(comm, dtype, shape, order):
    found = []
    for function in (with_relu, then_relu):
        x = array(*shape).astype(dtype)
        if order == "channels last":
            x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
        channels = shape[1:2]
        gamma, beta = array(*channels, seed=1), 0.3 * array(*channels, seed=2)
        inputs = [chainer.Variable(v.astype(dtype)) for v in (x, gamma, beta)]
        y = function(comm, *inputs)
        assert 0 < (y.array > 0).mean() < 1
        y.grad = array(*shape, seed=3).astype(dtype)
        y.backward()
        found.append([y.array, *(v.grad for v in inputs)])
    assert np.array_equal(found[0][0], found[1][0])
    # Compilers may add up in another order where there is ReLU to undo.
    limit = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-14}[dtype]
    for ours, theirs in zip(*found):
        assert ours.dtype == theirs.dtype
        assert error(ours, theirs) < limit


def test_relu_inside_keeps_a_nan(comm):
    x = np.ones((4, 3), np.float32) * np.arange(4, dtype=np.float32)[:, None]
    x[1, 2] = np.nan
    y = with_relu(comm, x, np.ones(3, np.float32), np.zeros(3, np.float32)).array
    assert np.isnan(y).all(axis=0).tolist() == [False, False, True]


def test_relu_passes_what_it_passed_before_parameters_changed(comm):
    found = []
    for function in (with_relu, then_relu):
        inputs = [chainer.Variable(v) for v in (array(9, 3), np.ones(3), np.zeros(3))]
        y = function(comm, *inputs)
        inputs[2].array -= 5
        F.sum(y).backward()
        found.append(inputs[2].grad)
    assert np.array_equal(*found) and found[0].all()


@pytest.mark.parametrize("link", [CrossBatchNormalization, PaperBatchNormalization])
@pytest.mark.parametrize("train", [True, False])
def test_link_with_relu(comm, train, link):
    link = link(3, comm)
    x = array(6, 3, 4, 5).astype(np.float32)
    with chainer.using_config("train", train):
        assert np.array_equal(link(x, relu=True).array, F.relu(link(x)).array)


def test_second_derivatives_with_relu(comm):
    def penalty(function):
        parameters = array(3, seed=1) + 2, array(3, seed=2)
        inputs = [chainer.Variable(v) for v in (array(4, 3, 2, 2), *parameters)]
        y = function(comm, *inputs)
        gx, _ = chainer.grad(
            [F.sum(y * array(*y.shape, seed=3))],
            inputs[:2],
            enable_double_backprop=True,
        )
        F.sum(gx * gx * gx).backward()
        return [v.grad for v in inputs[:2]]

    for ours, theirs in zip(penalty(with_relu), penalty(then_relu)):
        assert error(ours, theirs) < 1e-12


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
