"""On real GPUs, where there are some: `pytest -m gpu`."""

import functools
import importlib.util

import pytest
from mpi import mpiexec, run_tests

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
