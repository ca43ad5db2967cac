"""Where Numba is missing: the same results, through NumPy and Chainer."""

import json
from pathlib import Path

import numpy as np
import pytest
from mpi import ROOT, TRAIN, mpiexec

WITHOUT = f"{Path(__file__).parent / 'without_numba'}:{ROOT}"
FLAGS = (
    *("--dataset", "synthetic", "--train-size", 20, "--test-size", 20, "--epoch", 2),
    *("--width", 4, "--fc-units", 8, "--batchsize", 10),
)


@pytest.mark.slow
def test_exactness():
    done = mpiexec(
        2,
        *("-m", "pytest", "-q", ROOT / "tests" / "ranks" / "exactness_cases.py"),
        env={"PYTHONPATH": WITHOUT},
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert " passed" in done.stdout


def test_training(tmp_path):
    logs = []
    for name, path in (("with", str(ROOT)), ("without", WITHOUT)):
        done = mpiexec(
            *(2, TRAIN, *FLAGS, "--out", tmp_path, "--name", name),
            env={"PYTHONPATH": path},
        )
        assert done.returncode == 0, done.stderr
        logs.append(json.loads((tmp_path / name / "log").read_text()))
    # One step an epoch; Winograd's rounding is some 1e-5 of the largest output.
    for tolerance, entry, other in zip((1e-5, 1e-3), *logs):
        assert entry["main/loss"] == pytest.approx(other["main/loss"], rel=tolerance)
    weights = [np.load(tmp_path / name / "model.npz") for name in ("with", "without")]
    assert sorted(weights[0].files) == sorted(weights[1].files)


def test_numba_is_missing():
    code = (
        "import chainer_crossbn; from chainer_crossbn import kernels;"
        "print(kernels.COMPILED)"
    )
    done = mpiexec(1, "-c", code, env={"PYTHONPATH": WITHOUT})
    assert done.stdout.strip() == "False", done.stderr
