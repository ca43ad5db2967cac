"""Processes of a launcher whose MPI library mpi4py has not loaded."""

import os
import subprocess
import sys

import pytest
from mpi import TRAIN

SMALL = (
    *("--dataset", "synthetic", "--train-size", "20", "--test-size", "10"),
    *("--width", "1", "--fc-units", "4", "--batchsize", "4", "--epoch", "1"),
)


def train(out, env):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "SLURM"))}
    return subprocess.run(
        [sys.executable, str(TRAIN), *SMALL, "--out", str(out)],
        env={**kept, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "size,rank",
    [
        ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ],
)
def test_each_process_alone_is_refused_once(tmp_path, size, rank):
    first, second = (train(tmp_path / "out", {size: "2", rank: n}) for n in "01")
    assert first.returncode == second.returncode == 2
    # mpi4py may warn, too.
    (line,) = (x for x in first.stderr.splitlines() if x.startswith("train_cifar.py"))
    assert "started 2 processes" in line and f"unset {size}" in line
    assert "train_cifar.py" not in second.stderr
    assert first.stdout == second.stdout == ""
    assert not (tmp_path / "out").exists()


def test_one_process_in_an_allocation_trains(tmp_path):
    env = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}
    done = train(tmp_path / "out", env)
    assert done.returncode == 0, done.stderr
