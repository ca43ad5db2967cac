"""If a rank dies or hangs, all ranks end and the rank is named."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mpi import ROOT, TRAIN, mpiexec

HANG = ROOT / "tests" / "ranks" / "hang.py"
ELSEWHERE = r"at step 2 for [2-9] s; the others wait at the sum"


def living(mark):
    """Return the PIDs of processes with a mark in their environment."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark.encode() in (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if marked and state != "Z":
            pids.append(int(process.name))
    return pids


def assert_all_gone(mark):
    deadline = time.monotonic() + 5
    while living(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    remaining = living(mark)
    for pid in remaining:
        os.kill(pid, signal.SIGKILL)
    assert not remaining


@pytest.mark.parametrize(
    "how,where",
    [
        pytest.param("sleep", ELSEWHERE, marks=pytest.mark.slow),
        ("stop", ELSEWHERE),
        pytest.param(
            "inside",
            r"at step 2 for [2-9] s(; rank \d .* step 2 for [2-9] s)*",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_hanging_rank_is_named(how, where):
    mark = f"test_hangs_{os.getpid()}_{how}"
    done = mpiexec(3, HANG, how, env={"MARK": mark})
    assert done.returncode not in (0, 2)
    (line,) = [s for s in done.stderr.splitlines() if "no progress" in s]
    assert re.search(rf"rank 1 \(PID \d+ on \S+\) has been {where}", line), line
    assert done.stdout.count("done") == 0
    assert_all_gone(mark)


@pytest.mark.slow
def test_a_slow_rank_is_waited_for():
    done = mpiexec(3, HANG, "slow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 3
    assert done.stderr == ""


@pytest.fixture
def training(tmp_path):
    """A long run on 3 ranks: its launcher, PIDs of its ranks, mark and directory."""
    mark = f"test_hangs_{os.getpid()}_{tmp_path.name}"
    launcher = Path(sys.executable).parent / "mpiexec"
    flags = "--width 1 --fc-units 4 --batchsize 2 --bn none --epoch 9999 --name run"
    flags += " --dataset synthetic --train-size 12 --test-size 10 --cpu --lr 1e-6"
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(
            [
                *(str(launcher if launcher.exists() else "mpiexec"), "-n", "3"),
                *(sys.executable, str(TRAIN), *flags.split(), "--out", str(tmp_path)),
            ],
            env={**os.environ, "MARK": mark, "CHAINER_CROSSBN_TIMEOUT": "4"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    record = tmp_path / "run" / "args.json"
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log").exists():
        assert process.poll() is None, (tmp_path / "output").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pids = [rank["pid"] for rank in json.loads(record.read_text())["ranks"]]
    yield process, pids, mark, tmp_path
    process.kill()
    assert_all_gone(mark)


def test_a_dead_rank_ends_all(training):
    process, pids, mark, _ = training
    os.kill(pids[1], signal.SIGKILL)
    assert process.wait(5) != 0
    assert_all_gone(mark)


@pytest.mark.slow
def test_ranks_end_with_what_started_them(training):
    _, pids, mark, _ = training
    stat = Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2]
    os.kill(int(stat.split()[1]), signal.SIGKILL)
    assert_all_gone(mark)


def test_a_stopped_rank_is_named_in_training(training):
    process, pids, mark, folder = training
    os.kill(pids[2], signal.SIGSTOP)
    assert process.wait(60) != 0
    assert_all_gone(mark)
    lines = (folder / "output").read_text().splitlines()
    (line,) = [line for line in lines if "no progress" in line]
    assert f"rank 2 (PID {pids[2]} on " in line
    # It may be evaluating.
    assert re.search(r" at the .+ for \d+ s; the others wait at ", line)
