"""Arrays of any byte order and layout give the results of ordinary ones."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainermn
import numpy as np
import pytest

from chainer_crossbn import CrossBatchNormalization, cross_batch_normalization
from chainer_crossbn.functions import convolution_2d, linear, max_pooling_2d
from chainer_crossbn.kernels.normalization import array_api, numba


def field(x):
    """A field of a structured array: strided, and not aligned."""
    records = np.zeros(x.shape, np.dtype([("label", "i1"), ("value", x.dtype)]))
    records["value"] = x
    return records["value"]


def unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    memory[...] = x
    return memory


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def mapped(mode):
    def change(x, folder):
        path = folder / f"{len(list(folder.iterdir()))}.npy"
        np.save(path, x)
        return np.load(path, mmap_mode=mode)

    return change


FORMS = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "little-endian": lambda x: x.astype(x.dtype.newbyteorder("<")),
    "field": field,
    "unaligned": unaligned,
    "read-only": read_only,
    "negative strides": lambda x: np.flip(np.flip(x).copy()),
    "zero strides": lambda x: np.broadcast_to(x[:1], x.shape),
    "memory map": mapped("r"),
    "memory map to change": mapped("r+"),
}


@pytest.fixture(params=FORMS)
def form(request, tmp_path):
    change = FORMS[request.param]
    if request.param.startswith("memory map"):
        return lambda x: change(x, tmp_path)
    return change


@pytest.fixture(scope="module")
def comm():
    return chainermn.create_communicator("naive")


def array(*shape, dtype="float32", seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


def ordinary(x):
    return np.array(x, x.dtype.newbyteorder("="), order="C", subok=False)


def assert_equal(found, expected):
    for ours, theirs in zip(found, expected):
        assert ours.dtype.newbyteorder("=") == theirs.dtype
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5, 2)])
def test_link(comm, form, shape, dtype, relu):
    changed = form(array(*shape, dtype=dtype))
    results = []
    for x in (changed, ordinary(changed)):
        link = CrossBatchNormalization(3, comm)
        variable = chainer.Variable(x)
        link.cleargrads()
        y = link(variable, relu=relu)
        y.grad = array(*shape, seed=1).astype(y.dtype)
        y.backward()
        with chainer.no_backprop_mode(), chainer.using_config("train", False):
            tested = link(x, relu=relu)
        arrays = y.array, variable.grad, link.gamma.grad, link.beta.grad
        results.append((*arrays, link.avg_mean, link.avg_var, tested.array))
    assert_equal(*results)


def test_gradient_of_the_output(comm, form):
    gy = form(array(4, 3, 5, 2, dtype="float64"))
    results = []
    for g in (gy, ordinary(gy)):
        x = chainer.Variable(array(4, 3, 5, 2, dtype=g.dtype))
        y = CrossBatchNormalization(3, comm, dtype=np.float64)(x)
        y.grad = g
        y.backward()
        results.append([x.grad])
    assert_equal(*results)


def test_parameters_and_running_statistics(comm, form):
    vectors = [form(array(3, dtype="float64", seed=i) ** 2) for i in range(4)]
    x = array(6, 3, dtype="float64")
    if not all(v.flags.writeable for v in vectors):
        with pytest.raises(ValueError, match="read-only"):
            cross_batch_normalization(x, *vectors[:2], comm, 1e-5, *vectors[2:])
        return
    results = []
    for gamma, beta, mean, var in (vectors, [ordinary(v) for v in vectors]):
        y = cross_batch_normalization(x, gamma, beta, comm, 1e-5, mean, var)
        results.append([y.array, mean, var])
    for ours, theirs in zip(*results):
        assert np.allclose(ours, theirs, rtol=1e-14, atol=0)


@pytest.mark.parametrize("train", [True, False])
def test_extended_precision_is_refused(comm, train):
    if np.longdouble == np.float64:
        pytest.skip("there is no extended precision")
    x = array(6, 3, dtype=np.longdouble)
    with chainer.using_config("train", train), pytest.raises(TypeError, match="float"):
        CrossBatchNormalization(3, comm)(x)


FUNCTIONS = {
    "winograd": (lambda x, w: convolution_2d(x, w, pad=1), (4, 4, 3, 3)),
    "im2col": (lambda x, w: convolution_2d(x, w, stride=2), (4, 4, 3, 3)),
    "pointwise": (convolution_2d, (4, 4, 1, 1)),
    "linear": (linear, (4, 4 * 36)),
    "max pooling": (lambda x, w: max_pooling_2d(x, 2), (1,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(form, name):
    function, w_shape = FUNCTIONS[name]
    changed = [form(array(4, 4, 6, 6)), form(array(*w_shape, seed=1))]
    results = []
    for arrays in (changed, [ordinary(v) for v in changed]):
        inputs = [chainer.Variable(v) for v in arrays]
        y = function(*inputs)
        F.sum(y * y).backward()
        gradients = [v.grad for v in inputs if v.grad is not None]
        results.append([y.array, *gradients])
    assert_equal(*results)


@pytest.mark.parametrize("module", [array_api, numba])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_mean_of_rows(module, n):
    rows, mean = array(n, 5, dtype="float64"), np.empty(5)
    module.mean_rows(rows, np.float64(1 / n), mean)
    assert np.allclose(mean, rows.mean(axis=0), rtol=1e-15, atol=0)
