"""The kernels of all devices against their equations in long double.

Those of the GPU run on the CPU, from the same source.
"""

import functools
import json

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer.functions as F
import chainermn
import cuda_on_host
import numpy as np
import pytest
from mpi import ROOT, mpiexec
from numba.core.dispatcher import Dispatcher
from reference import error

from chainer_crossbn import kernels
from chainer_crossbn.kernels.cpu import im2col, matmul, pooling, sgd, winograd
from chainer_crossbn.kernels.cuda import launching
from chainer_crossbn.kernels.normalization import array_api, cuda, numba
from chainer_crossbn.kernels.normalization.groups import WHOLE, Groups
from chainer_crossbn.models import VGG16, normalizations
from chainer_crossbn.training.optimizers import MomentumSGD

SHAPES = [
    *((1, 1, 1), (2, 3, 1), (4, 5, 7), (3, 8, 1024), (0, 4, 9)),
    *((0, 4, 1), (7, 65, 1), (263, 16, 1)),
    # Planes of a GPU, of lengths that are multiples of its loads and are not.
    *((5, 3, 32), (3, 2, 33), (1, 2, 5000), (2, 1, 4999), (300, 2, 36)),
    # Columns, so many that there are several blocks of them; several to a channel.
    *((2, 300, 4), (90, 24, 16), (3, 5, 31)),
]
# Of the results that have the dtype of the input.
TOLERANCE = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-13}


@pytest.fixture(params=[array_api, numba, cuda], ids=["arrays", "cpu", "gpu"])
def module(request, monkeypatch):
    monkeypatch.setattr(launching, "launcher", cuda_on_host.launcher)
    return request.param


def case(shape, dtype):
    state = np.random.RandomState(0)
    x = (state.randn(*shape) * 2 + 3).astype(dtype)
    gy = state.randn(*shape).astype(dtype)
    return x, gy, state.uniform(0.5, 2, (2, shape[1]))


def parameters(shape, dtype):
    """Gamma and beta; of float16 they are float32, as in mixed16."""
    state = np.random.RandomState(1)
    dtype = np.promote_types(dtype, np.float32)
    return state.uniform(0.5, 2, (2, shape[1])).astype(dtype)


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

    @pytest.mark.parametrize("relu", [False, True])
    @pytest.mark.parametrize("offset", [0, 1])
    def test_normalize(self, module, shape, dtype, offset, relu):
        x, _, (mean, inv_std) = case(shape, dtype)
        x = elsewhere(x, offset)
        gamma, beta = parameters(shape, dtype)
        beta -= 3  # so that not all is positive
        y = module.normalize(x, mean, inv_std, gamma, beta, relu)
        assert y.dtype == x.dtype
        expected = affine(x, mean, inv_std, gamma, beta)
        if relu:
            expected = np.maximum(expected, 0)
        assert error(y, expected) < TOLERANCE[dtype]

    @pytest.mark.parametrize("relu", [False, True])
    def test_gradient_sums(self, module, shape, dtype, relu):
        x, gy, (mean, inv_std) = case(shape, dtype)
        relu_of = parameters(shape, dtype) - 2 if relu else None
        of = np.promote_types(dtype, np.float32)
        sums, own = module.gradient_sums(x, gy, mean, inv_std, of, relu_of)
        gy = passed(gy, x, mean, inv_std, relu_of)
        x_hat = (exact(x) - exact(mean)) * exact(inv_std)
        expected = np.concatenate([summed(exact(gy)), summed(exact(gy) * x_hat)])
        assert sums.dtype == np.float64
        assert own.dtype == of
        assert error(sums, expected) < 1e-13
        assert error(own.ravel(), expected) < TOLERANCE[of.name]

    @pytest.mark.parametrize("relu", [False, True])
    @pytest.mark.parametrize("on_device", [False, True])
    def test_input_gradient(self, module, shape, dtype, on_device, relu):
        x, gy, (mean, inv_std) = case(shape, dtype)
        gamma, beta = parameters(shape, dtype)
        # Since the forward pass gamma has changed.
        relu_of = (gamma + 1, beta - 3) if relu else None
        total = np.random.RandomState(2).randn(2, shape[1])
        count = np.array(37.0) if on_device else 37
        gx = module.input_gradient(
            x, gy, mean, inv_std, gamma, total.ravel(), count, relu_of
        )
        assert gx.dtype == x.dtype
        gy = passed(gy, x, mean, inv_std, relu_of)
        x_hat = (exact(x) - exact(mean)) * exact(inv_std)
        mean_gy, mean_gy_x_hat = exact(total[0]) / 37, exact(total[1]) / 37
        scale = exact(inv_std) * exact(gamma)
        expected = scale * (exact(gy) - mean_gy - x_hat * mean_gy_x_hat)
        assert error(gx, expected) < TOLERANCE[dtype]


def affine(x, mean, inv_std, gamma, beta):
    scale = exact(inv_std) * exact(gamma)
    return (exact(x) - exact(mean)) * scale + exact(beta)


def passed(gy, x, mean, inv_std, relu_of):
    if relu_of is None:
        return gy
    return np.where(affine(x, mean, inv_std, *relu_of) > 0, gy, gy.dtype.type(0))


def elsewhere(x, offset):
    """Copy an array to an address that is so many elements off a multiple of 16."""
    memory = np.empty(x.size + 32, x.dtype)
    start = -memory.ctypes.data % 16 // x.itemsize + offset
    moved = memory[start : start + x.size].reshape(x.shape)
    moved[...] = x
    return moved


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("shape", [(3, 2, 33), (300, 2, 36), (263, 16, 1), (0, 4, 9)])
@pytest.mark.parametrize("count", [1, np.array(12.0)])
@pytest.mark.parametrize("running_dtype", [None, "float32", "float64"])
@pytest.mark.parametrize("relu", [False, True])
def test_normalize_batch(module, shape, dtype, count, running_dtype, relu):
    x = case(shape, dtype)[0]
    gamma, beta = parameters(shape, dtype)
    state = np.random.RandomState(2)
    mean, m2 = state.uniform(0.5, 2, (2, shape[1]))
    before = running = (None, None)
    if running_dtype is not None:
        before = state.uniform(0.5, 2, (2, shape[1])).astype(running_dtype)
        running = tuple(before.copy())
    y, inv_std = module.normalize_batch(
        x, count, mean, m2, 1e-3, gamma, beta, running, 0.75, relu
    )
    var = m2 / count
    assert inv_std.dtype == np.float64
    assert error(inv_std, (var + 1e-3) ** -0.5) < 1e-15
    expected = affine(x, mean, (var + 1e-3) ** -0.5, gamma, beta)
    assert y.dtype == x.dtype
    assert error(y, np.maximum(expected, 0) if relu else expected) < TOLERANCE[dtype]
    for found, old, new in zip(running, before, (mean, m2 / max(count - 1, 1))):
        if old is not None:
            expected = 0.75 * old.astype(np.float64) + 0.25 * new
            assert error(found, expected) < TOLERANCE[running_dtype]


GROUPS = [
    # Planes, some of which several blocks of a GPU share.
    *(((6, 3, 33), Groups(6, 3)), ((13, 2, 36), Groups(13, 4, 2))),
    *(((5, 1, 5000), Groups(5, 2)), ((300, 1, 36), Groups(300, 3))),
    # Columns: of samples, and of samples times positions.
    *(((13, 5, 1), Groups(13, 4, 2)), ((6, 300, 4), Groups(6, 6, 2))),
    ((13 * 90, 16, 1), Groups(13, 4, 2)),
]
# Dtype, whether ReLU follows, and the count, by default that of each group.
CASES_OF_GROUPS = [
    *(("float16", True, None), ("float32", False, None)),
    *(("float32", True, np.array(37.0)), ("float64", False, 37)),
]


def each_group(groups, arrays, vectors):
    """Return, of each group, its rows of arrays and its parts of vectors."""
    return zip(
        *(rows_of_groups(v, groups) for v in arrays),
        *(v.reshape(groups.count, -1) for v in vectors),
    )


def rows_of_groups(x, groups):
    ranks = np.array_split(
        x.reshape(groups.samples, -1, *x.shape[1:]), groups.virtual_ranks
    )
    return [
        np.concatenate(ranks[i : i + groups.size]).reshape(-1, *x.shape[1:])
        for i in range(0, groups.virtual_ranks, groups.size)
    ]


def vectors_of(groups, shape, number):
    """Return as many vectors of statistics, that differ between groups."""
    state = np.random.RandomState(2)
    return state.uniform(0.5, 2, (number, groups.count * shape[1]))


def normalized(x, mean, inv_std, gamma, beta, relu, groups):
    y = np.concatenate(
        [affine(*v, gamma, beta) for v in each_group(groups, [x], [mean, inv_std])]
    )
    return np.maximum(y, 0) if relu else y


@pytest.mark.parametrize("shape,groups", GROUPS)
class TestGroups:
    @pytest.mark.parametrize("dtype", sorted(TOLERANCE))
    def test_moments(self, module, shape, groups, dtype):
        x = case(shape, dtype)[0]
        mean, m2 = module.moments(x, groups)
        parts = [exact(part) for part in rows_of_groups(x, groups)]
        means = [part.mean(axis=(0, 2)) for part in parts]
        squares = [summed((part - exact(m)) ** 2) for part, m in zip(parts, means)]
        assert mean.dtype == m2.dtype == np.float64
        assert error(mean, np.concatenate(means)) < 4e-15
        assert error(m2, np.concatenate(squares)) < 1e-12

    @pytest.mark.parametrize("dtype,relu,_", CASES_OF_GROUPS)
    def test_normalize(self, module, shape, groups, dtype, relu, _):
        x = case(shape, dtype)[0]
        gamma, beta = parameters(shape, dtype)
        beta -= 3  # so that not all is positive
        others = *vectors_of(groups, shape, 2), gamma, beta, relu, groups
        y = module.normalize(x, *others)
        assert y.dtype == x.dtype
        assert error(y, normalized(x, *others)) < TOLERANCE[dtype]

    @pytest.mark.parametrize("dtype,relu,count", CASES_OF_GROUPS)
    def test_normalize_batch(self, module, shape, groups, dtype, relu, count):
        x = case(shape, dtype)[0]
        others = *parameters(shape, dtype), relu, groups
        mean, m2, *before = vectors_of(groups, shape, 4)
        running = tuple(np.reshape(before, (2, groups.count, -1)).astype("f"))
        y, inv_std = module.normalize_batch(
            *(x, count, mean, m2, 1e-3, *others[:2], running, 0.75, *others[2:])
        )
        if count is None:
            sizes = [len(part) * shape[2] for part in rows_of_groups(x, groups)]
            count = np.repeat(sizes, shape[1])
        expected = (m2 / count + 1e-3) ** -0.5
        assert inv_std.dtype == np.float64
        assert error(inv_std, expected) < 1e-15
        assert y.dtype == x.dtype
        assert error(y, normalized(x, mean, expected, *others)) < TOLERANCE[dtype]
        for found, old, new in zip(running, before, (mean, m2 / (count - 1))):
            assert error(found.ravel(), 0.75 * old + 0.25 * new) < 1e-6

    @pytest.mark.parametrize("dtype,relu,_", CASES_OF_GROUPS)
    def test_gradient_sums(self, module, shape, groups, dtype, relu, _):
        x, gy, _ = case(shape, dtype)
        relu_of = parameters(shape, dtype) - 2 if relu else None
        of = np.promote_types(dtype, np.float32)
        vectors = vectors_of(groups, shape, 2)
        sums, own = module.gradient_sums(x, gy, *vectors, of, relu_of, groups)
        expected = []
        for part, gy_part, mean, inv_std in each_group(groups, (x, gy), vectors):
            g = exact(passed(gy_part, part, mean, inv_std, relu_of))
            x_hat = (exact(part) - exact(mean)) * exact(inv_std)
            expected.append([summed(g), summed(g * x_hat)])
        assert sums.dtype == np.float64
        assert error(sums, np.swapaxes(expected, 0, 1).ravel()) < 1e-13
        # In order of the groups, whichever of them was ready first, and rounded once.
        total = sum(np.swapaxes(sums.reshape(2, groups.count, -1), 0, 1))
        assert own.dtype == of
        assert own.tobytes() == total.astype(of).tobytes()

    @pytest.mark.parametrize("dtype,relu,count", CASES_OF_GROUPS)
    def test_input_gradient(self, module, shape, groups, dtype, relu, count):
        x, gy, _ = case(shape, dtype)
        gamma, beta = parameters(shape, dtype)
        # Since the forward pass gamma has changed.
        relu_of = (gamma + 1, beta - 3) if relu else None
        vectors = vectors_of(groups, shape, 4)
        mean, inv_std, *total = vectors
        others = gamma, np.ravel(total), count, relu_of, groups
        gx = module.input_gradient(x, gy, mean, inv_std, *others)
        expected = []
        for part, g, mean, inv_std, *sums in each_group(groups, (x, gy), vectors):
            n = len(part) * shape[2] if count is None else count
            g = exact(passed(g, part, mean, inv_std, relu_of))
            x_hat = (exact(part) - exact(mean)) * exact(inv_std)
            mean_gy, mean_gy_x_hat = (exact(v) / n for v in sums)
            scale = exact(inv_std) * exact(gamma)
            expected.append(scale * (g - mean_gy - x_hat * mean_gy_x_hat))
        assert gx.dtype == x.dtype
        assert error(gx, np.concatenate(expected)) < TOLERANCE[dtype]


def launches(monkeypatch, shape, groups):
    """Return the kernels that a forward and a backward pass launch on a GPU."""
    found = []

    class Launcher(cuda_on_host.Launcher):
        def __call__(self, name, grid, arguments):
            found.append((name, grid))
            super().__call__(name, grid, arguments)

    @functools.cache
    def launcher(*arguments):
        return Launcher(*arguments)

    monkeypatch.setattr(launching, "launcher", launcher)
    x, gy, _ = case(shape, "float32")
    gamma, beta = parameters(shape, "float32")
    mean, m2 = cuda.moments(x, groups)
    others = mean, m2, 1e-3, gamma, beta, (None, None), 0.9
    _, inv_std = cuda.normalize_batch(x, None, *others, groups=groups)
    total, _ = cuda.gradient_sums(x, gy, mean, inv_std, gamma.dtype, groups=groups)
    vectors = mean, inv_std, gamma, total
    cuda.input_gradient(x, gy, *vectors, None, groups=groups)
    return found


@pytest.mark.parametrize("shape", [(300, 2, 36), (2600, 16, 1)])
def test_groups_take_no_launches_of_their_own(monkeypatch, shape):
    whole = launches(monkeypatch, shape, WHOLE)
    in_groups = launches(monkeypatch, shape, Groups(shape[0] // 20, 4))
    assert [name for name, _ in whole] == [name for name, _ in in_groups]
    assert {grid[2] for _, grid in in_groups} == {4}
    # As each group has a whole number of blocks, there may be a few more.
    for (_, grid), (_, grid_of_groups) in zip(whole, in_groups):
        assert np.prod(grid_of_groups) < 2 * np.prod(grid)


def test_more_groups_than_a_gpu_takes(monkeypatch):
    monkeypatch.setattr(launching, "launcher", cuda_on_host.launcher)
    x = np.zeros((65536, 1, 1), "f")
    with pytest.raises(ValueError, match="at most 65535 groups .* not 65536"):
        cuda.moments(x, Groups(65536, 65536))


def test_running_statistics_do_not_hang_on_images(module):
    state = np.random.RandomState(0)
    mean, m2, *before = state.uniform(0.5, 2, (4, 300))
    gamma, beta = np.ones((2, 300), "f")
    kept = []
    for shape in ((0, 300, 9), (5, 300, 9), (5, 300, 1), (0, 300, 0)):
        apart = np.empty((300, 4), "f")  # of which they are columns
        apart[:, ::2] = np.transpose(before)
        running = apart[:, 0], apart[:, 2]
        others = gamma, beta, running, 0.9
        module.normalize_batch(np.ones(shape, "f"), 12, mean, m2, 1e-5, *others)
        kept.append(np.stack(running).tobytes())
    assert len(set(kept)) == 1
    expected = 0.9 * before[0] + 0.1 * mean, 0.9 * before[1] + 0.1 * m2 / 11
    assert error(np.stack(running), expected) < 1e-7


def test_infinities_and_nans_stay(module):
    x = case((3, 5, 64), "float32")[0]
    x[1, 2, 3], x[2, 4, 7] = np.inf, np.nan
    mean, m2 = module.moments(x)
    assert np.isfinite(mean).tolist() == [True, True, False, True, False]
    assert np.isfinite(m2).tolist() == [True, True, False, True, False]


def test_moments_with_a_first_row_far_from_the_rest(module):
    x = np.random.RandomState(0).randn(5000, 3, 1)
    x[0] += 1e6
    mean, m2 = module.moments(x)
    expected = exact(x).sum(axis=(0, 2)) / len(x)
    assert error(mean, expected.astype(np.float64)) < 1e-14
    assert error(m2, summed((exact(x) - exact(expected)) ** 2)) < 1e-14


@pytest.mark.parametrize("shape", [(1, 1, 700_000), (200_000, 4, 1)])
def test_more_blocks_than_merge_at_once(shape, monkeypatch):
    monkeypatch.setattr(launching, "launcher", cuda_on_host.launcher)
    monkeypatch.setattr(cuda_on_host.Launcher, "multiprocessors", 128)
    x, gy, _ = case(shape, "float32")
    mean, m2 = cuda.moments(x)
    expected = exact(x).mean(axis=(0, 2)).astype(np.float64)
    assert error(mean, expected) < 1e-15
    assert error(m2, summed((exact(x) - exact(expected)) ** 2)) < 1e-13
    sums, _ = cuda.gradient_sums(x, gy, mean, np.ones(shape[1]), np.dtype("f"))
    expected = summed(exact(gy)), summed(exact(gy) * (exact(x) - exact(mean)))
    assert error(sums, np.concatenate(expected)) < 1e-13


@pytest.mark.parametrize("module", [array_api, numba])  # it runs on the host
@pytest.mark.parametrize("counts", [(3, 5), (0, 5), (5, 0), (0, 0), (1, 1)])
def test_merge(module, counts):
    state = np.random.RandomState(0)
    parts = [state.randn(n, 200, 1) * 3 + 1000 for n in counts]
    vectors = [np.concatenate([[len(part)], *numba.moments(part)]) for part in parts]
    whole = np.concatenate(parts)
    expected = np.concatenate([[len(whole)], *numba.moments(whole)])
    merged = [v.copy() for v in vectors]
    module.merge(vectors[0], merged[1])
    module.merge(vectors[1], merged[0])
    assert merged[0].tobytes() == merged[1].tobytes()
    assert np.allclose(merged[0], expected, rtol=1e-12, atol=0)


def test_precompile_covers_training():
    kernels.precompile()
    before = signatures()
    comm = chainermn.create_communicator("naive")
    model = VGG16(3, normalizations.create("multigpu", comm), width=4, fc_units=8)
    optimizer = MomentumSGD(weight_decay=1e-4).setup(model)
    for batchsize in (1, 40):  # which take different ways through the convolutions
        x, t = case((batchsize, 3, 32 * 32), "float32")[0], np.arange(batchsize) % 3
        x, t = x.reshape(-1, 3, 32, 32), t.astype(np.int32)
        optimizer.update(lambda x, t: F.softmax_cross_entropy(model(x), t), x, t)
    assert signatures() == before
    assert any(before)


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_nothing_is_compiled_in_training(n_ranks, tmp_path):
    # Ranks that share memory have further kernels; two of them average another way.
    done = mpiexec(n_ranks, ROOT / "tests" / "ranks" / "compiled.py", tmp_path)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["known"] > 20
    assert shown["new"] == {}


def signatures():
    """Return how many signatures each compiled function is compiled for."""
    algorithms = winograd._F4, winograd._F2
    found = [*(v for algorithm in algorithms for v in algorithm)]
    for module in (im2col, numba, pooling, matmul, sgd):
        found += vars(module).values()
    return [len(f.signatures) for f in found if isinstance(f, Dispatcher)]
