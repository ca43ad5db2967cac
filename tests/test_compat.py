"""Chainer and ChainerMN on this Python and this NumPy."""

import importlib.util
import io
import json
import math
import multiprocessing
import subprocess
import sys
import unittest
from pathlib import Path

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainer.links as L
import chainer.testing
import chainermn
import numpy as np
import pytest
from chainer import gradient_check, training
from chainer.training import extensions
from chainermn.communicators import _memory_utility

from chainer_crossbn import _compat

ROOT = Path(__file__).resolve().parent.parent


def run(code, *options):
    """Run code in a fresh interpreter; return what it prints, errors included."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def uniform(*shape, dtype=np.float64):
    return np.random.RandomState(0).uniform(0.2, 0.9, shape).astype(dtype)


# The import.


def test_import_leaves_everything_as_found():
    out = run(
        """
import sys, types, warnings
import numpy
warnings.filterwarnings("error", "mine")
filters, names, modules = list(warnings.filters), dict(vars(numpy)), set(sys.modules)
import chainer_crossbn
import chainer, chainermn, chainer.testing
F = chainer.functions
x = chainer.Variable(numpy.ones((2, 2, 4, 4), "f"))
y = F.resize_images(F.as_strided(x, (2, 2, 3, 3), (32, 16, 4, 1), 0), (4, 4))
F.sum(y).backward()
# Chainer's imports add to both: SciPy its filters, submodules their names.
assert [entry for entry in warnings.filters if entry in filters] == filters
for name, value in vars(numpy).items():
    assert names.get(name) is value or isinstance(value, types.ModuleType), name
assert not {"pkg_resources", "numpy.distutils"} & (set(sys.modules) - modules)
"""
    )
    assert out == ""


def test_importing_this_package_imports_no_chainer():
    run(
        """
import sys
import chainer_crossbn, chainer_crossbn.plotting
assert not {"chainer", "chainermn", "mpi4py"} & set(sys.modules)
"""
    )


def test_start_up_is_silent():
    run("import chainer_crossbn, chainer, chainermn, chainer.testing", "-W", "error")


def test_other_warnings_are_shown():
    out = run(
        """
import chainer_crossbn, chainer, chainermn, warnings
chainermn.create_communicator("naive").bcast(chainer.utils.force_array(1.0))
warnings.warn("mine")
"""
    )
    assert "FutureWarning: chainermn" in out
    assert "UserWarning: mine" in out


def test_chainer_may_come_first():
    # It imports on some NumPy and Python, and fails halfway through on the others.
    run(
        """
try:
    import chainer
except (AttributeError, ModuleNotFoundError):
    pass
import chainer_crossbn, chainer, numpy
chainer.functions.resize_images(numpy.ones((1, 1, 4, 4), "f"), (3, 3))
""",
        "-W",
        "ignore",
    )


@pytest.mark.parametrize("name", sorted(_compat._EDITS))
def test_edits_fit_the_source(name):
    source = importlib.util.find_spec(name).loader.get_source(name)
    for old, new in _compat._EDITS[name]:
        assert old in source
        assert old.count("\n") == new.count("\n")


# What is corrected.


@pytest.mark.parametrize("size", [(5, 7), (2, 3)])
def test_resize_images(size):
    x = uniform(2, 3, 4, 6, dtype=np.float32)

    def interpolation(n, out):  # (out, n), rows add up to 1
        at = np.linspace(0, n - 1, out)
        return np.maximum(0, 1 - abs(at[:, None] - np.arange(n)))

    down, across = interpolation(4, size[0]), interpolation(6, size[1])
    chainer.testing.assert_allclose(
        F.resize_images(x, size).array, down @ x @ across.T, rtol=1e-5
    )
    gradient_check.check_backward(
        lambda x: F.resize_images(x, size),
        x,
        uniform(2, 3, *size, dtype=np.float32),
        eps=1e-2,
        rtol=1e-2,
    )


def test_as_strided_backward():
    x = chainer.Variable(uniform(5))
    y = F.as_strided(x, (3, 2), (1, 1), 1)
    gy = y.grad = uniform(3, 2)
    y.backward()
    expected = np.zeros(5)
    np.add.at(expected, np.array([[1, 2], [2, 3], [3, 4]]), gy)
    chainer.testing.assert_allclose(x.grad, expected)


def test_categorical_log_prob():
    logit = uniform(3, 4)
    log_prob = chainer.distributions.Categorical(logit=logit).log_prob(
        np.array([0, 3, 1])
    )
    expected = logit[range(3), [0, 3, 1]] - np.log(np.exp(logit).sum(1))
    chainer.testing.assert_allclose(log_prob.array, expected)


@pytest.mark.parametrize("divisor", [3, 3.0, np.float16(3), np.float32(3), np.int32(3)])
def test_division_by_a_scalar(divisor):
    x = uniform(4)
    np.testing.assert_allclose((chainer.Variable(x) / divisor).array, x / 3, rtol=1e-15)


def test_multi_node_iterator():
    class Comm:  # of a rank other than the master: receives length, order, a batch
        rank = 1

        def __init__(self):
            message = [0, 1, 0, 1, 2]  # neither the end nor pairs; position 2
            self.messages = iter([[4], [-1], message, [7, 8]])

        def bcast(self, x, root):
            return np.array(next(self.messages), np.float32)

    iterator = chainermn.iterators.create_multi_node_iterator(None, Comm())
    assert iterator.next() == [7, 8]
    assert iterator.dataset_size == 4


def test_unpack_params_in_another_dtype():
    class Buffer:
        def to_device(self, array, size, offset, stream):
            array[...] = 5

    param = chainer.Parameter(uniform(3, dtype=np.float16))
    param.grad = np.zeros(3, np.float16)
    _memory_utility.unpack_params([param], "grad", Buffer(), np.float32, False)
    np.testing.assert_array_equal(param.grad, np.full(3, 5, np.float16))


def test_requirements_of_tests():
    def runs(decorator):
        result = unittest.TestResult()
        unittest.FunctionTestCase(decorator(lambda: None)).run(result)
        return not result.skipped

    assert runs(chainer.testing.with_requires("numpy>=1.24", "chainer==7.8.1"))
    assert not runs(chainer.testing.with_requires("numpy<1.24"))
    assert not runs(chainer.testing.with_requires("no-such-distribution"))
    assert not runs(chainer.testing.without_requires("numpy"))


# What was right before, and has to stay so.

FUNCTIONS = {
    "average_pooling_2d": (lambda x: F.average_pooling_2d(x, 2), [(2, 3, 4, 4)]),
    "batch_normalization": (F.batch_normalization, [(4, 3, 2, 2), (3,), (3,)]),
    "concat": (lambda x, y: F.concat([x, y]), [(2, 3), (2, 1)]),
    "constants": (lambda x: 2 * x / 3 - 0.5**x + x**1.5, [(2, 3)]),
    "convolution_2d": (
        lambda x, w, b: F.convolution_2d(x, w, b, stride=1, pad=1),
        [(2, 3, 4, 4), (4, 3, 3, 3), (4,)],
    ),
    "dropout": (
        lambda x: F.dropout(x, mask=np.array([0, 2, 2], x.dtype)),
        [(3,)],
    ),
    "fixed_batch_normalization": (
        F.fixed_batch_normalization,
        [(4, 3), (3,), (3,), (3,), (3,)],
    ),
    "get_item": (lambda x: x[:, [0, 0, 2]], [(2, 3)]),
    "group_normalization": (
        lambda x, g, b: F.group_normalization(x, 2, g, b),
        [(2, 4, 3), (4,), (4,)],
    ),
    "layer_normalization": (F.layer_normalization, [(4, 3), (3,), (3,)]),
    "linear": (F.linear, [(2, 3), (4, 3), (4,)]),
    "local_response_normalization": (F.local_response_normalization, [(2, 5, 2, 2)]),
    "max_pooling_2d": (lambda x: F.max_pooling_2d(x, 3, 2), [(2, 3, 5, 5)]),
    "mean": (lambda x: F.mean(x, axis=(0, 2)), [(2, 3, 4)]),
    "normalize": (F.normalize, [(2, 3)]),
    "relu": (F.relu, [(2, 3)]),
    "softmax_cross_entropy": (
        lambda x: F.softmax_cross_entropy(x, np.array([0, 2, -1], np.int32)),
        [(3, 4)],
    ),
    "sum": (F.sum, [(2, 3)]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name):
    function, shapes = FUNCTIONS[name]
    inputs = tuple(uniform(*shape) for shape in shapes)
    grad = uniform(*function(*map(chainer.Variable, inputs)).shape)
    np.random.seed(0)  # of the direction
    gradient_check.check_backward(function, inputs, grad, eps=1e-5, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_dtypes_do_not_change(name, dtype):
    # NumPy 2 promotes scalars by other rules than those that Chainer was written for.
    function, shapes = FUNCTIONS[name]
    inputs = [chainer.Variable(uniform(*shape, dtype=dtype)) for shape in shapes]
    output = function(*inputs)
    output.grad = np.ones_like(output.array)
    output.backward()
    assert {x.dtype for x in [output, *inputs]} == {np.dtype(dtype)}
    assert {x.grad.dtype for x in inputs} == {np.dtype(dtype)}


class Net(chainer.Chain):
    def __init__(self, norm=None):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 4, 3, pad=1)
            self.norm = norm or L.BatchNormalization(4)
            self.fc = L.Linear(None, 2)

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2)
        return self.fc(F.dropout(h))


def new_trainer(out, optimizer=None, norm=None):
    np.random.seed(0)
    labels = np.tile([0, 1], 10).astype(np.int32)
    images = (uniform(20, 3, 4, 4) + labels[:, None, None, None]).astype(np.float32)
    data = chainer.datasets.TupleDataset(images, labels)
    model = L.Classifier(Net(norm))
    optimizer = optimizer or chainer.optimizers.MomentumSGD(0.05)
    optimizer.setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    iterator = chainer.iterators.SerialIterator(data, 4)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (8, "epoch"), out=str(out))
    test = chainer.iterators.SerialIterator(data, 4, repeat=False, shuffle=False)
    trainer.extend(extensions.Evaluator(test, model))
    trainer.extend(extensions.LogReport())
    return trainer


def test_training(tmp_path):
    trainer = new_trainer(tmp_path)
    table = io.StringIO()
    keys = ["epoch", "main/loss", "validation/main/accuracy", "seen", "lr"]
    trainer.extend(extensions.observe_lr())
    trainer.extend(extensions.observe_value("seen", lambda _: np.float32(0.5)))
    trainer.extend(extensions.PrintReport(keys, out=table))
    trainer.extend(extensions.snapshot(filename="snapshot"))
    trainer.run()

    log = json.loads((tmp_path / "log").read_text())
    assert [entry["epoch"] for entry in log] == list(range(1, 9))
    assert log[-1]["seen"] == 0.5
    assert log[-1]["validation/main/accuracy"] > 0.9
    # Numbers, and not their NumPy 2 representations.
    assert [float(value) for value in table.getvalue().split()[-4:]][2] == 0.5

    resumed = new_trainer(tmp_path)
    chainer.serializers.load_npz(str(tmp_path / "snapshot"), resumed)
    assert resumed.updater.epoch == 8
    params = (t.updater.get_optimizer("main").target for t in (trainer, resumed))
    for a, b in zip(*(sorted(target.namedparams()) for target in params)):
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1].array, b[1].array)


def test_hdf5(tmp_path):
    pytest.importorskip("h5py")
    net, other = Net(), Net()
    net(uniform(1, 3, 4, 4, dtype=np.float32))
    chainer.serializers.save_hdf5(str(tmp_path / "net.h5"), net)
    chainer.serializers.load_hdf5(str(tmp_path / "net.h5"), other)
    np.testing.assert_array_equal(net.fc.W.array, other.fc.W.array)
    np.testing.assert_array_equal(net.norm.avg_var, other.norm.avg_var)


@pytest.mark.parametrize("name", ["HeNormal", "LeCunNormal", "GlorotUniform"])
def test_initializers(name):
    initializer = getattr(chainer.initializers, name)()
    w = np.empty((64, 32), np.float32)
    initializer(w)
    variance = {"HeNormal": 2 / 32, "LeCunNormal": 1 / 32, "GlorotUniform": 2 / 96}
    assert math.isclose(w.var(), variance[name], rel_tol=0.15)


def test_summary():
    summary = chainer.DictSummary()
    summary.add({"a": np.float32(1), "b": (np.float64(2), 3)})
    summary.add({"a": chainer.Variable(np.array(2, np.float32)), "b": 6})
    mean = {key: float(value) for key, value in summary.compute_mean().items()}
    assert mean == {"a": 1.5, "b": 3.0}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SerialIterator", {}),
        ("MultithreadIterator", {"n_threads": 2}),
        ("MultiprocessIterator", {"n_processes": 2, "shared_mem": 1000}),
    ],
)
def test_iterators(name, options):
    # As if no thread pool had fixed the default, which no longer forks on Python 3.14.
    multiprocessing.set_start_method(None, force=True)
    iterator = getattr(chainer.iterators, name)(
        np.arange(10), 4, repeat=False, shuffle=True, **options
    )
    assert sorted(sum(map(list, iterator), [])) == list(range(10))
    iterator.finalize()


def test_chainermn_on_one_rank(tmp_path):
    comm = chainermn.create_communicator("naive").split(0, 0)
    ones = np.ones(3, np.float32)
    for result in [comm.allreduce(ones), comm.bcast(ones), comm.allgather(ones)[0]]:
        np.testing.assert_array_equal(result, ones)
    assert comm.allreduce_obj(2) == comm.bcast_obj(2) == 2

    optimizer = chainer.optimizers.MomentumSGD(0.05)
    optimizer = chainermn.create_multi_node_optimizer(optimizer, comm)
    norm = chainermn.links.MultiNodeBatchNormalization(4, comm)
    trainer = new_trainer(tmp_path, optimizer, norm)
    model = trainer.updater.get_optimizer("main").target
    comm.bcast_data(model)
    trainer.run()
    comm.multi_node_mean_grad(model)
    assert json.loads((tmp_path / "log").read_text())[-1]["main/loss"] < 0.7
