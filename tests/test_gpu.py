"""On real GPUs, where there are some: `pytest -m gpu`."""

import functools
import importlib.util
import json

import pytest
from mpi import TRAIN, mpiexec, run_tests

pytestmark = pytest.mark.gpu
COUNT = "import cupy; print(cupy.cuda.runtime.getDeviceCount())"


@functools.cache
def n_devices():
    if importlib.util.find_spec("cupy") is None:
        return 0
    done = mpiexec(1, "-c", COUNT)
    return int(done.stdout) if done.returncode == 0 else 0


@pytest.mark.parametrize(
    "n_ranks,way", [(1, ""), (2, "staged"), (1, "nccl"), (2, "nccl"), (2, "")]
)
def test_cases(n_ranks, way):
    if n_devices() < (n_ranks if way == "nccl" else 1):
        pytest.skip("there are too few GPUs")
    env = {"CHAINER_CROSSBN_COLLECTIVE": way}
    run_tests(n_ranks, "gpu_cases.py", env=env, timeout=600)


@pytest.mark.parametrize(
    "n_ranks,communicator", [(1, "pure_nccl"), (2, "pure_nccl"), (2, "staged")]
)
def test_training(n_ranks, communicator, tmp_path):
    if n_devices() < (n_ranks if communicator == "pure_nccl" else 1):
        pytest.skip("there are too few GPUs")
    flags = ["--gpu", "--communicator", communicator, "--dataset", "synthetic"]
    flags += ["--train-size", 2000, "--test-size", 500, "--epoch", 3, "--batchsize", 16]
    flags += ["--width", 8, "--fc-units", 64, "--lr", 0.01]
    done = mpiexec(n_ranks, TRAIN, *flags, "--out", tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob("*/log")
    first, _, last = json.loads(log.read_text())
    assert last["main/loss"] < first["main/loss"]
