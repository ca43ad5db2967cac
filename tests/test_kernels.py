"""The kernels of both devices against their equations in long double."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer.functions as F
import chainermn
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from reference import error

from chainer_crossbn import kernels, normalizers
from chainer_crossbn.kernels import columns, cpu, gpu, pooling, update, winograd
from chainer_crossbn.models import VGG16
from chainer_crossbn.optimizers import MomentumSGD

SHAPES = [
    *((1, 1, 1), (2, 3, 1), (4, 5, 7), (3, 8, 1024), (0, 4, 9)),
    *((0, 4, 1), (7, 65, 1), (263, 16, 1)),
]
# Of the results that have the dtype of the input.
TOLERANCE = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-13}


@pytest.fixture(params=[cpu, gpu], ids=["cpu", "gpu"])
def module(request):
    return request.param


def case(shape, dtype):
    state = np.random.RandomState(0)
    x = (state.randn(*shape) * 2 + 3).astype(dtype)
    gy = state.randn(*shape).astype(dtype)
    vectors = state.uniform(0.5, 2, (5, shape[1]))
    return x, gy, vectors


def exact(v):
    v = np.asarray(v, np.longdouble)
    return v if v.ndim == 3 else v[:, None]


def summed(v):
    return v.sum(axis=(0, 2)).astype(np.float64)


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES)
class TestKernels:
    @pytest.mark.parametrize("offset", [0, 1e4])
    def test_moments(self, module, shape, dtype, offset):
        x = case(shape, dtype)[0] + np.dtype(dtype).type(offset)
        mean, m2 = module.moments(x)
        count = max(shape[0] * shape[2], 1)
        expected = exact(x).sum(axis=(0, 2)) / count
        assert mean.dtype == m2.dtype == np.float64
        assert error(mean, expected.astype(np.float64)) < 1e-15
        assert error(m2, summed((exact(x) - exact(expected)) ** 2)) < 1e-12

    def test_normalize(self, module, shape, dtype):
        x, _, (mean, scale, shift, _, _) = case(shape, dtype)
        y = module.normalize(x, mean, scale, shift)
        assert y.dtype == x.dtype
        expected = (exact(x) - exact(mean)) * exact(scale) + exact(shift)
        assert error(y, expected) < TOLERANCE[dtype]

    def test_gradient_sums(self, module, shape, dtype):
        x, gy, (mean, inv_std, _, _, _) = case(shape, dtype)
        results = module.gradient_sums(x, gy, mean, inv_std)
        x_hat = (exact(x) - exact(mean)) * exact(inv_std)
        for result, v in zip(results, (exact(gy), exact(gy) * x_hat)):
            assert result.dtype == np.float64
            assert error(result, summed(v)) < 1e-13

    def test_input_gradient(self, module, shape, dtype):
        x, gy, (mean, inv_std, scale, mean_gy, slope) = case(shape, dtype)
        gx = module.input_gradient(x, gy, mean, inv_std, scale, mean_gy, slope)
        assert gx.dtype == x.dtype
        x_hat = (exact(x) - exact(mean)) * exact(inv_std)
        expected = exact(scale) * (exact(gy) - exact(mean_gy) - x_hat * exact(slope))
        assert error(gx, expected) < TOLERANCE[dtype]


def test_moments_with_a_first_row_far_from_the_rest():
    x = np.random.RandomState(0).randn(5000, 3, 1)
    x[0] += 1e6
    mean, m2 = cpu.moments(x)
    expected = exact(x).sum(axis=(0, 2)) / len(x)
    assert error(mean, expected.astype(np.float64)) < 1e-14
    assert error(m2, summed((exact(x) - exact(expected)) ** 2)) < 1e-14


@pytest.mark.parametrize("counts", [(3, 5), (0, 5), (5, 0), (0, 0), (1, 1)])
def test_merge(module, counts):
    state = np.random.RandomState(0)
    parts = [state.randn(n, 200, 1) * 3 + 1000 for n in counts]
    vectors = [np.concatenate([[len(part)], *cpu.moments(part)]) for part in parts]
    whole = np.concatenate(parts)
    expected = np.concatenate([[len(whole)], *cpu.moments(whole)])
    merged = [v.copy() for v in vectors]
    module.merge(vectors[0], merged[1])
    module.merge(vectors[1], merged[0])
    assert merged[0].tobytes() == merged[1].tobytes()
    assert np.allclose(merged[0], expected, rtol=1e-12, atol=0)


def test_precompile_covers_training():
    kernels.precompile()
    before = signatures()
    comm = chainermn.create_communicator("naive")
    model = VGG16(3, normalizers.create("multigpu", comm), width=4, fc_units=8)
    optimizer = MomentumSGD(weight_decay=1e-4).setup(model)
    for batchsize in (1, 40):  # which take different ways through the convolutions
        x, t = case((batchsize, 3, 32 * 32), "float32")[0], np.arange(batchsize) % 3
        x, t = x.reshape(-1, 3, 32, 32), t.astype(np.int32)
        optimizer.update(lambda x, t: F.softmax_cross_entropy(model(x), t), x, t)
    assert signatures() == before
    assert any(before)


def signatures():
    """Return how many signatures each compiled function is compiled for."""
    algorithms = winograd._F4, winograd._F2
    found = [*(v for algorithm in algorithms for v in algorithm)]
    for module in (columns, cpu, pooling, update):
        found += vars(module).values()
    return [len(f.signatures) for f in found if isinstance(f, Dispatcher)]
