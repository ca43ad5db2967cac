"""Where the time goes: profiles of 1 to 3 ranks, and of a run of 2."""

import json

import pytest
from mpi import TRAIN, mpiexec, run_tests

FLAGS = (
    *("--dataset", "synthetic", "--train-size", 40, "--test-size", 20, "--epoch", 2),
    *("--width", 4, "--fc-units", 8, "--batchsize", 4, "--no-model"),
)


def test_profiling():
    run_tests(3, "profiling_cases.py", "-k", "3_ranks")


@pytest.mark.slow
def test_profiling_on_fewer_ranks():
    run_tests(3, "profiling_cases.py", "-k", "not 3_ranks")


def train(out, *flags):
    done = mpiexec(2, TRAIN, *FLAGS, "--out", out, *flags)
    assert done.returncode == 0, done.stderr
    (run,) = out.iterdir()
    return run, json.loads((run / "log").read_text())


def test_a_run_is_as_without_a_profile(tmp_path):
    run, log = train(tmp_path / "profiled", "--profile")
    plain, plain_log = train(tmp_path / "plain")
    profile = json.loads((run / "profile.json").read_text())
    assert not (plain / "profile.json").exists()
    for entry, plain_entry in zip(log, plain_log):
        for key in ("main/loss", "validation/main/loss", "validation/main/accuracy"):
            assert entry[key] == plain_entry[key]
    total = sum(epoch["wall"] * epoch["iterations"] for epoch in profile["epochs"])
    assert total * 1e-6 == pytest.approx(log[-1]["elapsed_time"], rel=0.03)
    assert [epoch["iterations"] for epoch in profile["epochs"]] == [5, 5]
    assert len(profile["last_epoch"]) == 5
