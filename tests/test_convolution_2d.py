"""The convolution beside Chainer's own."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from reference import error

from chainer_crossbn.functions.convolution_2d import convolution_2d
from chainer_crossbn.kernels.cpu import im2col, winograd
from chainer_crossbn.links.convolution_2d import Convolution2D

TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
# x, W
WINOGRAD = [
    ((2, 5, 7, 6), (6, 5, 3, 3)),
    ((1, 3, 1, 1), (7, 3, 3, 3)),
    ((3, 65, 4, 9), (130, 65, 3, 3)),
    ((5, 4, 32, 32), (4, 4, 3, 3)),
    ((40, 64, 8, 8), (64, 64, 3, 3)),
    ((0, 4, 8, 8), (5, 4, 3, 3)),
]
# x, W, stride, pad
GENERAL = [
    ((2, 5, 7, 6), (6, 5, 3, 3), 1, 1),
    ((64, 16, 32, 32), (16, 16, 3, 3), 1, 1),
    ((1, 3, 1, 1), (7, 3, 3, 3), 1, 1),
    ((3, 6, 9, 4), (5, 6, 3, 2), (2, 1), (0, 1)),
    ((5, 4, 8, 8), (4, 4, 1, 1), 1, 0),
    ((3, 4, 7, 6), (5, 4, 1, 1), 2, 0),
    ((3, 4, 7, 6), (5, 4, 1, 1), (3, 1), 0),
    ((3, 4, 7, 6), (5, 4, 1, 1), 2, 1),
    ((0, 4, 8, 8), (5, 4, 1, 1), 1, 0),
    ((2, 3, 17, 16), (8, 3, 7, 7), 2, 3),
    ((2, 3, 5, 2), (4, 3, 5, 5), 1, 4),
    ((2, 3, 9, 4), (4, 3, 1, 3), (1, 4), (0, 5)),
    ((70, 8, 8, 8), (8, 8, 3, 3), 2, 1),
    ((3, 3, 11, 11), (4, 3, 5, 5), 2, 2),
    ((2, 3, 8, 9), (4, 3, 2, 3), 3, 0),
    ((0, 4, 8, 8), (5, 4, 3, 3), 1, 1),
    ((2, 6, 3, 2), (40, 6, 3, 2), 1, (2, 1)),
    ((3, 9, 5, 4), (70, 9, 3, 3), (2, 1), 1),
    ((2, 250, 2, 2), (500, 250, 3, 3), 1, 1),
]


def arrays(dtype, *shapes):
    state = np.random.RandomState(0)
    return [state.randn(*shape).astype(dtype) for shape in shapes]


def expected(x, w, b, gy, stride, pad):
    """Return y and the gradients of x, W and b, by Chainer in float64."""
    x, w, b = (chainer.Variable(v.astype(np.float64)) for v in (x, w, b))
    if len(x) == 0:  # which Chainer's own refuses
        return gy, x.array, np.zeros(w.shape), np.zeros(b.shape)
    y = F.convolution_2d(x, w, b, stride, pad)
    y.grad = gy.astype(np.float64)
    y.backward()
    return y.array, x.grad, w.grad, b.grad


def output_shape(x, w, stride, pad):
    pairs = [v if isinstance(v, tuple) else (v, v) for v in (stride, pad)]
    sides = (
        (x[2 + i] + 2 * p - w[2 + i]) // s + 1 for i, (s, p) in enumerate(zip(*pairs))
    )
    return (x[0], w[0], *sides)


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("x,w", WINOGRAD)
def test_winograd(x, w, dtype):
    gy = output_shape(x, w, 1, 1)
    x, w, b, gy = arrays(dtype, x, w, w[:1], gy)
    y, gx, gw, _ = expected(x, w, b, gy, 1, 1)
    found = (
        winograd.convolve(x, w, b),
        winograd.gradient_of_input(gy, w),
        winograd.gradient_of_filters(x, gy),
    )
    assert found[-1].flags.c_contiguous
    for ours, theirs in zip(found, (y, gx, gw)):
        assert ours.dtype == dtype
        assert error(ours, theirs) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("x,w,stride,pad", GENERAL)
def test_function(x, w, stride, pad, dtype):
    gy = output_shape(x, w, stride, pad)
    x, w, b, gy = arrays(dtype, x, w, w[:1], gy)
    inputs = [chainer.Variable(v) for v in (x, w, b)]
    y = convolution_2d(*inputs, stride, pad)
    y.grad = gy
    y.backward()
    found = (y.array, *(v.grad for v in inputs))
    for ours, theirs in zip(found, expected(x, w, b, gy, stride, pad)):
        assert ours.dtype == dtype
        assert error(ours, theirs) < TOLERANCE[dtype]


@pytest.mark.parametrize("size", [1, 3000, 20000, 10**9])
@pytest.mark.parametrize("x,w,stride,pad", GENERAL)
def test_blocks_of_columns(x, w, stride, pad, size, monkeypatch):
    """Of some rows of an image, one image, or several."""
    monkeypatch.setattr(im2col, "_BLOCK_BYTES", size)
    x = (min(x[0], 3), *x[1:])
    test_function(x, w, stride, pad, "float64")


@pytest.mark.parametrize("view", ["Fortran order", "channels last", "sliced"])
def test_arrays_need_not_be_contiguous(view):
    x, w, gy = arrays("float64", (32, 16, 8, 8), (16, 16, 3, 3), (32, 16, 8, 8))
    change = {
        "Fortran order": np.asfortranarray,
        "channels last": lambda v: np.moveaxis(
            np.ascontiguousarray(np.moveaxis(v, 1, -1)), -1, 1
        ),
        "sliced": lambda v: np.repeat(v, 2, axis=0)[::2],
    }[view]
    for module in (winograd, im2col):
        more = () if module is winograd else ((1, 1), (1, 1))
        shapes = (
            () if module is winograd else (x.shape,),
            () if module is winograd else (w.shape,),
        )
        plain, changed = (
            (
                module.convolve(f(x), f(w), None, *more),
                module.gradient_of_input(f(gy), f(w), *shapes[0], *more),
                module.gradient_of_filters(f(x), f(gy), *shapes[1], *more),
            )
            for f in (lambda v: v, change)
        )
        for a, b in zip(plain, changed):
            assert error(b, a) < 1e-13


@pytest.mark.parametrize(
    "side,stride,pad", [(3, 1, 1), (3, 2, 0), (1, 1, 0), (1, 2, 0)]
)
def test_gradients(side, stride, pad):
    x, w, b = arrays("float64", (2, 3, 5, 4), (4, 3, side, side), (4,))
    shape = output_shape(x.shape, w.shape, stride, pad)
    (gy,) = arrays("float64", shape)

    def function(*inputs):
        return convolution_2d(*inputs, stride, pad)

    gradient_check.check_backward(function, (x, w, b), gy, dtype=np.float64)
    gradient_check.check_double_backward(
        function,
        (x, w, b),
        gy,
        tuple(arrays("float64", x.shape, w.shape, b.shape)),
        dtype=np.float64,
    )


@pytest.mark.parametrize("dtype", ["float16", *sorted(TOLERANCE)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups,side", [(2, 3), (3, 1), (6, 5)])
def test_groups(groups, side, bias, dtype):
    shapes = (2, 6, 8, 7), (12, 6 // groups, side, side), (12,), (2, 12, 8, 7)
    x, w, b, gy = arrays(dtype, *shapes)
    results = []
    for function, kind in ((convolution_2d, dtype), (F.convolution_2d, "float64")):
        if dtype == "float16":
            kind = dtype
        inputs = [chainer.Variable(v.astype(kind)) for v in (x, w, b)[: 2 + bias]]
        y = function(*inputs, pad=side // 2, groups=groups)
        y.grad = gy.astype(kind)
        y.backward()
        results.append((y.array, *(v.grad for v in inputs)))
    assert results[0][2].flags.c_contiguous
    for ours, theirs in zip(*results):
        assert ours.dtype == dtype
        assert error(ours, theirs) < TOLERANCE.get(dtype, 1e-12)


@pytest.mark.parametrize("x", [(32, 16, 8, 8), (1, 3, 8, 8)])
def test_no_gradient_where_none_is_wanted(x):
    link = Convolution2D(x[1], 4, 3, pad=1)
    (x,) = arrays("float32", x)
    link.cleargrads()
    F.sum(link(x) ** 2).backward()
    stock = L.Convolution2D(None, 4, 3, pad=1)
    stock(x)
    stock.copyparams(link)
    stock.cleargrads()
    F.sum(stock(x) ** 2).backward()
    assert error(link.W.grad, stock.W.grad) < 1e-4


OPTIONS = [
    {},
    {"stride": 2},
    {"pad": 1, "nobias": True},
    {"dilate": 2},
    {"groups": 2},
    {"in_channels": None},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_link(options):
    arguments = {"in_channels": 4, "out_channels": 6, "ksize": 3, **options}
    ours, theirs = Convolution2D(**arguments), L.Convolution2D(**arguments)
    (x,) = arrays("float32", (2, 4, 9, 9))
    ours(x), theirs(x)
    theirs.copyparams(ours)
    assert error(ours(x).array, theirs(x).array) < 1e-5
    names = []
    for link in (ours, theirs):
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(link)
        names.append(sorted(serializer.target))
    assert names[0] == names[1]


def test_float16_is_chainer_s():
    x, w = arrays("float16", (2, 3, 5, 5), (4, 3, 3, 3))
    assert (convolution_2d(x, w).array == F.convolution_2d(x, w).array).all()


@pytest.mark.parametrize(
    "x,w", [((2, 3, 5, 5), (4, 2, 3, 3)), ((2, 3, 2, 2), (4, 3, 3, 3))]
)
def test_wrong_shapes_are_refused(x, w):
    with pytest.raises(chainer.utils.type_check.InvalidType):
        convolution_2d(*arrays("float32", x, w))


def test_lists_are_taken_as_chainer_takes_them():
    x = np.random.RandomState(0).randn(2, 3, 9, 9).astype("float32")
    conv = Convolution2D(3, 4, ksize=3, stride=[2, 2], pad=[1, 1])
    expected = F.convolution_2d(x, conv.W, conv.b, stride=(2, 2), pad=(1, 1))
    np.testing.assert_allclose(conv(x).array, expected.array, rtol=1e-4, atol=1e-5)
