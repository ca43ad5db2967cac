"""The kernels of both devices against their equations in long double."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import numpy as np
import pytest
from reference import error

from chainer_crossbn import kernels
from chainer_crossbn.kernels import cpu, gpu

SHAPES = [(1, 1, 1), (2, 3, 1), (4, 5, 7), (3, 8, 1024), (0, 4, 9)]
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
def test_merge(counts):
    state = np.random.RandomState(0)
    parts = [state.randn(n, 200, 1) * 3 + 1000 for n in counts]
    vectors = [np.concatenate([[len(part)], *cpu.moments(part)]) for part in parts]
    whole = np.concatenate(parts)
    expected = np.concatenate([[len(whole)], *cpu.moments(whole)])
    merged = [v.copy() for v in vectors]
    cpu.merge(vectors[0], merged[1])
    cpu.merge(vectors[1], merged[0])
    assert merged[0].tobytes() == merged[1].tobytes()
    assert np.allclose(merged[0], expected, rtol=1e-12, atol=0)


def test_precompile_covers_training():
    before = [len(f.signatures) for f in compiled()]
    kernels.precompile()
    after = [len(f.signatures) for f in compiled()]
    x, gy, (a, b, c, d, e) = case((2, 3, 4), "float32")
    cpu.moments(x)
    cpu.merge(np.zeros(3), np.zeros(3))
    cpu.normalize(x, a, b, c)
    cpu.gradient_sums(x, gy, a, b)
    cpu.input_gradient(x, gy, a, b, c, d, e)
    assert [len(f.signatures) for f in compiled()] == after
    assert all(n >= m and n > 0 for n, m in zip(after, before))


def compiled():
    return (
        *(cpu._moments, cpu._merge, cpu._normalize),
        *(cpu._gradient_sums, cpu._input_gradient),
    )
