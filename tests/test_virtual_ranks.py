"""Virtual ranks against real ones: training, and the link on its own."""

import functools
import json

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainermn
import numpy as np
import pytest
from chainer import gradient_check
from mpi import ROOT, TRAIN, mpiexec
from reference import batch_normalization, error

from chainer_crossbn import CrossBatchNormalization, cross_batch_normalization
from chainer_crossbn.commands.train.main import main

# 8 ranks are distributed over this many processes. With 4, groups are both larger and
# smaller than what a process has.
FAST, SLOW = (4, 8), (2, 1)
PROCESSES = (*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW))
VIRTUAL = tuple(n for n in PROCESSES if n != 8)
CASES = (
    "none",
    "normal",
    "multigpu",
    "paper",
    "paper-local",
    "pairs",
    "augment",
    "dropout",
)
TIMES = {"elapsed_time", "train_time", "images_per_second"}


# Training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a function from a number of processes to a directory of their runs."""
    out = tmp_path_factory.mktemp("virtual")
    script = ROOT / "tests" / "ranks" / "virtual_ranks.py"

    @functools.cache
    def train(n_processes):
        directory = out / str(n_processes)
        env = {"CHAINER_DTYPE": "float64"}
        done = mpiexec(n_processes, script, directory, env=env, timeout=400)
        assert done.returncode == 0, done.stderr
        return directory

    return train


def numbers(run):
    """Return all numbers of a run but its times."""
    log = json.loads((run / "log").read_text())
    statistics = json.loads((run / "statistics.json").read_text())
    found = {
        f"{key} of epoch {entry['epoch']}": value
        for entry in log
        for key, value in entry.items()
        if key not in TIMES
    }
    for reading, values in statistics["test"].items():
        found.update({f"{key} with {reading}": v for key, v in values.items()})
    for i, layer in enumerate(statistics["layers"]):
        found.update(
            {f"{key} of layer {i}": layer[key] for key in ("mean", "variance")}
        )
    with np.load(run / "model.npz") as model:
        found.update(model)
    return found


def assert_close(run, other):
    found, expected = numbers(run), numbers(other)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert error(found[name], value) < 1e-9, name


@pytest.mark.parametrize("n_processes", VIRTUAL)
@pytest.mark.parametrize("case", CASES)
def test_equals_real_ranks(trained, case, n_processes):
    assert_close(trained(n_processes) / case, trained(8) / case)


@pytest.mark.parametrize("n_processes", PROCESSES)
def test_resume(trained, n_processes):
    out = trained(n_processes)
    resumed, whole = numbers(out / "resumed"), numbers(out / "dropout")
    assert set(resumed) == set(whole)
    for name, value in whole.items():
        assert np.array_equal(resumed[name], value), name


@pytest.mark.parametrize(
    "processes", [FAST, pytest.param((*FAST, *SLOW), marks=pytest.mark.slow)], ids=str
)
def test_resume_on_another_number_of_processes(trained, processes):
    directories = {str(n): trained(n) for n in processes}
    # Each number of processes after the first resumes runs of all before.
    runs = [
        (out / f"resumed-from-{other}", whole / "dropout")
        for out in directories.values()
        for other, whole in directories.items()
    ]
    resumed = [(run, whole) for run, whole in runs if run.exists()]
    assert len(resumed) == len(processes) * (len(processes) - 1) // 2
    for run, whole in resumed:
        assert_close(run, whole)


@pytest.mark.parametrize("n_processes", VIRTUAL)
def test_resume_with_fewer_ranks(trained, n_processes):
    run = trained(n_processes) / "with-half-the-ranks"
    assert len(json.loads((run / "log").read_text())) == 2


@pytest.mark.parametrize("n_processes", PROCESSES)
def test_record(trained, n_processes):
    path = trained(n_processes) / "normal" / "args.json"
    record = json.loads(path.read_text())
    assert record["n_ranks"] == 8
    assert record["n_processes"] == n_processes
    assert record["virtual_ranks"] == 8 // n_processes


@pytest.mark.parametrize(
    "flags,words",
    [
        (("--bn", "chainer"), "--virtual-ranks does not support --bn chainer"),
        (("--bn", "chainermn"), "--virtual-ranks does not support --bn chainermn"),
        (("--batchsize", "100"), "a global batch of 12 ranks x 100 images"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_refusals(tmp_path, call, flags, words):
    common = ("--dataset", "synthetic", "--train-size", 200, "--virtual-ranks", 12)
    done = call(main, *common, *flags, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_groups_that_processes_do_not_hold_are_refused(tmp_path):
    common = ("--dataset", "synthetic", "--train-size", 200, "--virtual-ranks", 12)
    done = mpiexec(2, TRAIN, *common, "--bn-group-size", 8, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "--bn-group-size 8 must divide --virtual-ranks 12" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


# The link


@pytest.fixture(scope="module")
def comm():
    return chainermn.create_communicator("naive")


def array(*shape, seed=0):
    return np.random.RandomState(seed).uniform(-1, 1, shape)


def indices_of_groups(samples, virtual_ranks, group_size):
    ranks = np.array_split(np.arange(samples), virtual_ranks)
    return [
        np.concatenate(ranks[i : i + group_size])
        for i in range(0, virtual_ranks, group_size)
    ]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "shape,axis",
    [
        ((13, 4, 3, 5), None),
        ((13, 4), None),
        ((13, 3, 5, 4), (0, 1, 2)),
        ((13, 4, 3, 5), (0, 2)),
        ("channels last", None),
    ],
    ids=str,
)
@pytest.mark.parametrize("virtual_ranks,group_size", [(8, 1), (4, 2), (13, 1), (4, 4)])
def test_each_group_has_statistics_of_its_own(
    comm, virtual_ranks, group_size, shape, axis, relu
):
    x, gy = array(13, 4, 3, 5), array(13, 4, 3, 5, seed=1)
    if shape == "channels last":
        x, gy = (v.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) for v in (x, gy))
    else:
        x, gy = array(*shape), array(*shape, seed=1)
    channel_axes = [i for i in range(x.ndim) if i not in (axis or (0, 2, 3))]
    size = tuple(x.shape[i] for i in channel_axes)
    link = CrossBatchNormalization(
        size,
        comm,
        axis=axis,
        dtype=np.float64,
        virtual_ranks=virtual_ranks,
        virtual_group_size=group_size,
    )
    link.gamma.array[...] = array(*size, seed=2) + 2
    link.beta.array[...] = array(*size, seed=3)
    variable = chainer.Variable(x)
    y = link(variable, relu=relu)
    link.cleargrads()
    y.grad = gy
    y.backward()

    ggamma, gbeta, means, variances = 0, 0, [], []
    groups = indices_of_groups(len(x), virtual_ranks, group_size)
    for own in groups:
        passed = gy[own]
        parameters = link.gamma.array, link.beta.array
        expected = batch_normalization(x[own], passed, *parameters, axis=axis)
        if relu:
            passed = passed * (expected["y"] > 0)
            expected = batch_normalization(x[own], passed, *parameters, axis=axis)
        shown = np.maximum(expected["y"], 0) if relu else expected["y"]
        assert error(y.array[own], shown) < 1e-12
        assert error(variable.grad[own], expected["gx"]) < 1e-11
        ggamma, gbeta = ggamma + expected["ggamma"], gbeta + expected["gbeta"]
        n = expected["n"]
        means.append(0.1 * expected["mean"])
        variances.append(0.9 + 0.1 * expected["var"] * n / max(n - 1, 1))
    assert error(link.gamma.grad, ggamma) < 1e-12
    assert error(link.beta.grad, gbeta) < 1e-12
    shape_of_running = size if len(groups) == 1 else (len(groups), *size)
    assert link.avg_mean.shape == link.avg_var.shape == shape_of_running
    assert error(link.avg_mean, np.reshape(means, shape_of_running)) < 1e-12
    assert error(link.avg_var, np.reshape(variances, shape_of_running)) < 1e-12


@pytest.mark.parametrize("backprop", [False, True])
def test_in_test_mode_it_normalizes_by_the_mixture(comm, backprop):
    link = CrossBatchNormalization(3, comm, dtype=np.float64, virtual_ranks=4)
    link.avg_mean[...] = array(4, 3)
    link.avg_var[...] = array(4, 3, seed=1) + 2
    x = array(6, 3, 2, 2, seed=2)
    test_mode = chainer.using_config("train", False)
    with test_mode, chainer.using_config("enable_backprop", backprop):
        y = link(x).array
    # The distribution of a value from one of the ranks, each as likely as the others.
    mean = link.avg_mean.mean(axis=0)
    second_moment = (link.avg_var + link.avg_mean**2).mean(axis=0)
    std = np.sqrt(second_moment - mean**2 + 2e-5)
    assert error(y, (x - mean[:, None, None]) / std[:, None, None]) < 1e-12


def test_second_derivatives(comm):
    x, gy, ggx = (array(7, 2, 3, seed=seed) for seed in range(3))
    gamma, beta = array(2, seed=3) + 2, array(2, seed=4)
    gradient_check.check_double_backward(
        lambda *inputs: cross_batch_normalization(*inputs, comm, virtual_ranks=3),
        (x, gamma, beta),
        gy,
        (ggx, array(2, seed=5), array(2, seed=6)),
        dtype=np.float64,
        atol=1e-6,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "shape,options,message",
    [
        ((3, 2), {"virtual_ranks": 4}, "3 samples is too small for 4 virtual ranks"),
        ((4, 2), {"virtual_ranks": 4, "virtual_group_size": 3}, "must divide"),
        ((4, 2), {"virtual_ranks": 0}, "at least 1"),
        ((2, 4, 3), {"virtual_ranks": 2, "axis": (1, 2)}, "parts of the first axis"),
    ],
    ids=str,
)
def test_bad_arguments(comm, shape, options, message):
    gamma, beta = np.ones(2), np.zeros(2)
    with pytest.raises(ValueError, match=message):
        cross_batch_normalization(array(*shape), gamma, beta, comm, **options)
