"""What is around the GPU's kernels, with what stands in for CuPy and NCCL."""

import json
import os

import cuda_on_host
import numpy as np
import pytest
from mpi import ROOT, TRAIN, mpiexec, run_tests, stand_in
from reference import error

from chainer_crossbn.commands.train.main import main

RANKS = ROOT / "tests" / "ranks"
SMALL = ("--dataset", "synthetic", "--train-size", 40, "--test-size", 20)
SMALL += ("--width", 1, "--fc-units", 4, "--batchsize", 4, "--epoch", 1)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """All ranks and runs share what is compiled."""
    return {cuda_on_host.CACHE: str(tmp_path_factory.mktemp("compiled"))}


@pytest.mark.parametrize(
    "n_ranks,way",
    [(3, "nccl"), slow(2, "mpi"), slow(3, "staged")],
)
def test_cases(n_ranks, way, env):
    env = stand_in({**env, "CHAINER_CROSSBN_COLLECTIVE": way})
    run_tests(n_ranks, "gpu_cases.py", env=env)


# Ranks that go astray, by NCCL


FAULTS = ("order", "channels", "skip", "skip the last", "part of backward")


def errors_of(n_ranks, cases, env):
    """Return the errors of the ranks, by case."""
    env = stand_in({**env, "CHAINER_CROSSBN_TIMEOUT": "4"})
    program = RANKS / "order.py", "--gpu", *cases
    done = mpiexec(n_ranks, *program, env=env, timeout=120)
    assert done.stdout.startswith("{"), done.stderr
    return json.loads(done.stdout.splitlines()[0])


def test_the_first_iteration_is_checked_beforehand(env):
    errors = errors_of(2, [f"{fault}, 1" for fault in FAULTS], env)
    assert len(errors) == len(FAULTS)
    for fault, messages in errors.items():
        for message in messages:
            expected = "the ranks did not all reach the same layer: rank 0"
            assert message.startswith(expected), fault


@pytest.mark.parametrize("n_ranks,fault", [(2, "skip"), slow(3, "order")])
def test_an_order_that_was_not_seen_before(n_ranks, fault, env):
    (messages,) = errors_of(n_ranks, [f"{fault}, 5"], env).values()
    for message in messages:
        assert message.startswith("the ranks did not all reach the same layer: rank 0")


@pytest.mark.parametrize("n_ranks", [slow(2), 3])
def test_known_ways_are_told_apart_by_what_comes_back(n_ranks, env):
    where = ["/second forward (9 numbers)"] * (n_ranks - 1)
    where.append("/third forward (9 numbers)")
    places = "; ".join(f"rank {rank} is at {at}" for rank, at in enumerate(where))
    (messages,) = errors_of(n_ranks, ["other, 6"], env).values()
    for message in messages:
        assert message == f"the ranks did not all reach the same layer: {places}"


def test_a_silent_rank_is_no_hang(env):
    (messages,) = errors_of(2, ["no backward, 5"], env).values()
    for message in messages:
        assert message.startswith("the ranks did not all reach the same layer")


@pytest.mark.slow
def test_without_a_fault_there_is_no_error(env):
    assert errors_of(3, ["none, 4"], env) == {"none, 4": [None] * 3}


# Which way

CHOICES = [
    (("", ""), "nccl"),
    (("mpi", "mpi"), "mpi"),
    (("staged", "staged"), "staged"),
    (("mpi", ""), "CHAINER_CROSSBN_COLLECTIVE is not the same on all ranks"),
    (
        ("", "ncll"),
        "CHAINER_CROSSBN_COLLECTIVE is 'ncll'; "
        "set it to mpi, shared, staged, nccl or not",
    ),
]
CHOICES_ON_ONE_DEVICE = [
    (("", ""), "staged"),
    (("nccl", "nccl"), "CHAINER_CROSSBN_COLLECTIVE is nccl, but ranks share a GPU"),
]
CHOICES_WITHOUT_NCCL = [
    (("", ""), "staged"),
    (("nccl", "nccl"), "CHAINER_CROSSBN_COLLECTIVE is nccl, but CuPy has no NCCL"),
]


@pytest.mark.parametrize(
    "settings,choices",
    [
        ({}, CHOICES),
        ({"STAND_IN_DEVICES": "1"}, CHOICES_ON_ONE_DEVICE),
        ({"STAND_IN_NCCL": "0"}, CHOICES_WITHOUT_NCCL),
    ],
    ids=["NCCL", "one device", "no NCCL"],
)
def test_choice(settings, choices, env):
    lists = [json.dumps(asked) for asked, _ in choices]
    done = mpiexec(2, RANKS / "choice.py", *lists, env=stand_in({**env, **settings}))
    assert json.loads(done.stdout) == [[way] * 2 for _, way in choices], done.stderr


# Training


def train(*flags, env):
    return mpiexec(2, TRAIN, *SMALL, *flags, env=stand_in(env), timeout=240)


def read(out):
    (run,) = out.iterdir()
    record, log = (
        json.loads((run / name).read_text()) for name in ("args.json", "log")
    )
    return record, log, np.load(run / "model.npz")


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    out = tmp_path_factory.mktemp("cpu")
    done = mpiexec(2, TRAIN, *SMALL, "--cpu", "--dropout", 0, "--out", out)
    assert done.returncode == 0, done.stderr
    return read(out)


@pytest.mark.parametrize(
    "n_devices,nccl,flags,collective",
    [
        (1, "1", ("--communicator", "staged"), "staged"),
        slow(2, "1", ("--communicator", "staged"), "nccl"),
        slow(2, "0", (), "staged"),
    ],
)
def test_training_is_that_of_cpus(
    n_devices, nccl, flags, collective, on_cpu, env, tmp_path
):
    env = {**env, "STAND_IN_DEVICES": str(n_devices), "STAND_IN_NCCL": nccl}
    flags = (*flags, "--gpu", "--dropout", 0, "--out", tmp_path)
    done = train(*flags, env=env)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    record, log, model = read(tmp_path)
    assert record["device"] == "GPU" and record["collective"] == collective
    assert record["arguments"]["communicator"] == "staged"
    expected_record, expected_log, expected = on_cpu
    assert expected_record["device"] == "CPU"
    assert expected_record["collective"] == "shared"
    for key in ("main/loss", "validation/main/loss"):
        if key in expected_log[0]:
            assert abs(log[0][key] - expected_log[0][key]) < 1e-3
    for name in expected:
        assert np.abs(model[name] - expected[name]).max(initial=0) < 1e-2, name


@pytest.mark.slow
@pytest.mark.parametrize("bn", ["normal", "multigpu"])
def test_a_gpu_stands_for_several(bn, env, tmp_path):
    flags = (*SMALL, "--bn", bn, "--dropout", 0)
    env = {**env, "CHAINER_DTYPE": "float64"}
    on_cpu = mpiexec(2, TRAIN, *flags, "--cpu", "--out", tmp_path / "cpu", env=env)
    flags_of_gpu = "--gpu", "--communicator", "staged", "--virtual-ranks", 2
    virtual = (*flags, *flags_of_gpu, "--out", tmp_path / "gpu")
    on_gpu = mpiexec(1, TRAIN, *virtual, env=stand_in(env), timeout=240)
    assert on_cpu.returncode == on_gpu.returncode == 0, on_cpu.stderr + on_gpu.stderr
    (record, log, model), (expected_record, expected_log, expected) = (
        read(tmp_path / name) for name in ("gpu", "cpu")
    )
    assert record["device"] == "GPU" and record["n_ranks"] == 2
    assert expected_record["device"] == "CPU" and expected_record["n_ranks"] == 2
    for key in ("main/loss", "validation/main/loss"):
        assert error(log[0][key], expected_log[0][key]) < 1e-8
    for name in expected:
        assert error(model[name], expected[name]) < 1e-8, name


@pytest.mark.slow
def test_a_launcher_may_show_each_rank_a_gpu_of_its_own(env, tmp_path):
    env = {**env, "STAND_IN_DEVICES": "1", "STAND_IN_OWN": "1", "STAND_IN_NCCL": "0"}
    done = train("--gpu", "--out", tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "device: GPU (a GPU for each rank)" in done.stdout


def test_more_ranks_than_devices(env, tmp_path):
    done = train("--gpu", "--out", tmp_path, env={**env, "STAND_IN_DEVICES": "1"})
    assert done.returncode == 2
    assert done.stderr == (
        "train_cifar.py: error: --gpu: CuPy sees 1 GPU on a node with 2 ranks; start "
        "fewer ranks on it, let them share GPUs by --communicator staged, or use "
        "--cpu\n"
    )
    assert not os.listdir(tmp_path)


MISSPELT = (
    "train_cifar.py: error: CHAINER_CROSSBN_COLLECTIVE is 'ncll'; set it to mpi, "
    "shared, staged, nccl or not\n"
)


def test_a_misspelt_way_is_refused_once(env, tmp_path):
    env = {**env, "CHAINER_CROSSBN_COLLECTIVE": "ncll"}
    done = train("--gpu", "--out", tmp_path, env=env)
    assert (done.returncode, done.stderr) == (2, MISSPELT)
    assert not os.listdir(tmp_path)


def test_a_misspelt_way_is_refused_on_cpus(tmp_path, monkeypatch, call):
    monkeypatch.setenv("CHAINER_CROSSBN_COLLECTIVE", "ncll")
    done = call(main, *SMALL, "--cpu", "--out", tmp_path)
    assert (done.returncode, done.stderr) == (2, MISSPELT)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("n_ranks", [slow(1), 2])
def test_the_check_of_a_gpu_machine_finds_all_exact(n_ranks, env):
    program = ROOT / "benchmarks" / "exactness.py", "--gpu"
    done = mpiexec(n_ranks, *program, env=stand_in(env), timeout=120)
    assert done.returncode == 0, done.stderr
    for case, found in json.loads(done.stdout.splitlines()[-1]).items():
        assert found == "shown" or all(error < 1e-7 for error in found), case


TWO_MODELS = """
import chainer_crossbn, chainermn, cupy
from chainer_crossbn.collectives import CollectiveError, sum_over_ranks
comm = chainermn.create_communicator("naive")
cupy.cuda.Device(comm.rank).use()
layers = ["used once", *"abbaa"]
try:
    for layer in layers + [list("ab")[comm.rank]] * 50:
        sum_over_ranks(comm, cupy.zeros(4), layer)
except CollectiveError:
    print("mismatch", flush=True)
"""


def test_a_mismatch_is_raised_though_the_first_layer_does_not_recur(env):
    env = stand_in({**env, "CHAINER_CROSSBN_COLLECTIVE": "nccl"})
    done = mpiexec(2, "-c", TWO_MODELS, env=env)
    assert done.stdout.split() == ["mismatch"] * 2, done.stderr
