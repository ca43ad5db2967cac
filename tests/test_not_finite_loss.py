"""A run whose loss is not finite ends with one line."""

import pytest
from mpi import TRAIN, mpiexec


@pytest.mark.parametrize("interval", [0, 1])
def test_the_message_is_one_line_and_true(tmp_path, interval):
    done = mpiexec(
        1,
        TRAIN,
        *("--dataset", "synthetic", "--train-size", 40, "--test-size", 10, "--cpu"),
        *("--batchsize", 4, "--width", 2, "--fc-units", 4, "--lr", 1e30, "--epoch", 3),
        *("--bn", "none", "--threads", 1, "--out", tmp_path, "--name", "run"),
        *("--snapshot-interval", interval),
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the loss is not finite" in line
    assert "has no snapshot" in line and not list(tmp_path.glob("run/snapshots/*"))
