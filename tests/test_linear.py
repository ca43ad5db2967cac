"""The linear layer beside its equations in float64, and beside Chainer's own."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from reference import error

from chainer_crossbn.functions.linear import linear
from chainer_crossbn.kernels.cpu import matmul
from chainer_crossbn.links.linear import Linear

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
# Rows of x, outputs, inputs: for the kernels, and for BLAS.
SHAPES = [
    *((n, 1030, 1021) for n in (1, 2, 3, 4, 5, 7, 8, 9)),
    *((n, 4099, 2053) for n in (2, 8)),
    *((3, 5, 4), (0, 5, 4), (0, 1030, 1021), (64, 1030, 1021)),
]


def arrays(dtype, *shapes):
    state = np.random.RandomState(0)
    return [state.randn(*shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("n,outputs,inputs", SHAPES)
def test_function(n, outputs, inputs, dtype):
    shapes = (n, inputs), (outputs, inputs), (outputs,), (n, outputs)
    x, w, b, gy = arrays(dtype, *shapes)
    variables = [chainer.Variable(v) for v in (x, w, b)]
    y = linear(*variables)
    y.grad = gy
    y.backward()
    x, w, b, gy = (v.astype(np.float64) for v in (x, w, b, gy))
    expected = x @ w.T + b, gy @ w, gy.T @ x, gy.sum(axis=0)
    for found, value in zip((y.array, *(v.grad for v in variables)), expected):
        assert found.dtype == dtype
        assert error(found, value) < TOLERANCE[dtype]


def test_few_rows_do_not_go_through_blas(monkeypatch):
    monkeypatch.setattr(matmul.numpy, "matmul", None)
    x, w, gy = arrays("float32", (2, 1024), (1024, 1024), (2, 1024))
    gw = np.outer(gy[0], x[0]) + np.outer(gy[1], x[1])
    assert error(matmul.forward(x, w), x @ w.T) < 1e-5
    assert error(matmul.gradient_of_input(gy, w), gy @ w) < 1e-5
    assert error(matmul.gradient_of_weights(x, gy), gw) < 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["x", "w"])
def test_what_is_not_finite_stays(bad, place):
    values = dict(zip("xwg", arrays("float32", (3, 1030), (1030, 1030), (3, 1030))))
    values[place][1, 5] = bad
    x, w, gy = values.values()
    for found, value in (
        (matmul.forward(x, w), x @ w.T),
        (matmul.gradient_of_input(gy, w), gy @ w),
        (matmul.gradient_of_weights(x[:2], gy[:2]), gy[:2].T @ x[:2]),
    ):
        assert np.array_equal(np.isfinite(found), np.isfinite(value))


@pytest.mark.parametrize("nobias", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2, 2), (0, 3, 2, 2)])
def test_link_is_chainers(shape, nobias, tmp_path):
    """The same parameters, in the same files, and the same outputs."""
    link, stock = Linear(None, 5, nobias=nobias), L.Linear(None, 5, nobias=nobias)
    (x,) = arrays("float32", shape)
    y = link(x)
    chainer.serializers.save_npz(tmp_path / "link.npz", link)
    if len(x) == 0:  # which Chainer's own refuses
        assert y.shape == (0, 5) and link.W.shape == (5, 12)
        return
    stock(x)
    chainer.serializers.load_npz(tmp_path / "link.npz", stock)
    assert error(y.array, stock(x).array) < 1e-6


def test_link_takes_several_batch_axes():
    x = arrays("float32", (2, 3, 4))[0]
    link = Linear(4, 5)
    assert error(link(x, n_batch_axes=2).array, x @ link.W.array.T) < 1e-6


@pytest.mark.parametrize("n", [2, 12])
def test_second_derivatives(n):
    x, w, b, gy, *gg = arrays("float64", *[(n, 5), (4, 5), (4,), (n, 4)] * 2)
    ggx, ggw, ggb, _ = gg
    gradient_check.check_double_backward(linear, (x, w, b), gy, (ggx, ggw, ggb))


def test_arrays_need_not_be_contiguous():
    x, w, gy = arrays("float64", (2, 2048), (2060, 1024), (2, 1030))
    x, w = x[:, ::2], np.asfortranarray(w)[::2]
    variables = chainer.Variable(x), chainer.Variable(w)
    y = linear(*variables)
    y.grad = gy
    y.backward()
    assert error(y.array, x @ w.T) < 1e-14
    assert error(variables[0].grad, gy @ w) < 1e-14
    assert error(variables[1].grad, gy.T @ x) < 1e-14


@pytest.mark.parametrize("dtypes", [("float16", "float16"), ("float32", "float64")])
def test_other_dtypes_are_chainers_own(dtypes):
    x, w = (arrays(dtype, (3, 4))[0] for dtype in dtypes)
    y = linear(x, w)
    assert y.dtype == dtypes[0]
    assert np.allclose(y.array, x.astype("float64") @ w.T.astype("float64"), rtol=1e-2)


def test_unfit_shapes_are_refused():
    with pytest.raises(chainer.utils.type_check.InvalidType):
        linear(np.zeros((2, 3), np.float32), np.zeros((4, 5), np.float32))
