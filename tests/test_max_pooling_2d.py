"""Max pooling beside Chainer's own."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check

from chainer_crossbn.functions.max_pooling_2d import max_pooling_2d

SHAPES = [
    ((2, 3, 8, 8), 2),
    ((1, 2, 7, 5), 2),
    ((3, 1, 1, 1), 2),
    ((2, 2, 9, 12), 3),
    ((2, 2, 4, 6), 1),
]


def array(shape, dtype="float64", seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


# size, stride, pad, cover_all; the last ones have windows outside of the map, or none
WINDOWS = [
    *((3, 2, 0, True), (3, 2, 1, False), (3, 1, 1, True), (5, 2, 2, True)),
    *((2, 3, 0, False), (11, 1, 5, True), (2, 3, 0, True), (3, 3, 1, True)),
    *((12, 1, 6, True), (2, 1, 2, True)),
]


@pytest.mark.parametrize("order", ["C", "channels last"])
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (1, 2, 9, 6)])
@pytest.mark.parametrize("windows", WINDOWS)
def test_windows_that_overlap(windows, shape, order):
    """Of whole numbers, of which many are alike: the first counts."""
    values = array(shape).round()
    if order == "channels last":
        values = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 1, -1)), -1, 1)
    results = []
    for function in (max_pooling_2d, F.max_pooling_2d):
        x = chainer.Variable(values)
        y = function(x, *windows)
        y.grad = array(y.shape, seed=1).round()
        y.backward()
        results.append((y.array, x.grad))
    for ours, theirs in zip(*results):
        assert (ours == theirs).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape,size", SHAPES)
def test_equals_chainer(shape, size, dtype):
    results = []
    for function in (max_pooling_2d, F.max_pooling_2d):
        x = chainer.Variable(array(shape, dtype))
        y = function(x, size)
        y.grad = array(y.shape, dtype, seed=1)
        y.backward()
        results.append((y.array, x.grad))
    for ours, theirs in zip(*results):
        assert ours.dtype == theirs.dtype
        assert (ours == theirs).all()


def test_no_image():
    """Which Chainer's own refuses."""
    x = chainer.Variable(array((0, 3, 5, 4), "float32"))
    y = max_pooling_2d(x, 2)
    y.grad = y.array
    y.backward()
    assert y.shape == (0, 3, 3, 2)
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_nan_is_the_maximum(place):
    values = array((1, 1, 4, 4))
    values[(0, 0, *place)] = np.nan
    x = chainer.Variable(values)
    y = max_pooling_2d(x, 2)
    y.grad = gy = array(y.shape, seed=1)
    y.backward()
    assert np.isnan(y.array[0, 0, 0, 0]) and np.isnan(y.array).sum() == 1
    assert x.grad[(0, 0, *place)] == gy[0, 0, 0, 0]


def test_arrays_need_not_be_contiguous():
    values = array((2, 3, 6, 8))
    for view in (np.asfortranarray(values), np.repeat(values, 2, axis=3)[..., ::2]):
        assert (max_pooling_2d(view, 2).array == max_pooling_2d(values, 2).array).all()


@pytest.mark.parametrize(
    "shape,windows",
    [
        *(((2, 3, 6, 6), (2,)), ((2, 1, 5, 7), (3,))),
        *(((2, 1, 5, 6), (3, 2, 1, False)), ((1, 2, 4, 5), (3, 1, 1))),
    ],
)
def test_gradients(shape, windows):
    # far apart, so that no step changes what is the maximum
    x = np.random.RandomState(0).permutation(np.prod(shape)).reshape(shape) * 1.0
    gy = array(max_pooling_2d(x, *windows).shape)
    gradient_check.check_backward(
        lambda v: max_pooling_2d(v, *windows), x, gy, dtype=np.float64
    )
    gradient_check.check_double_backward(
        lambda v: max_pooling_2d(v, *windows), x, gy, array(shape), dtype=np.float64
    )
