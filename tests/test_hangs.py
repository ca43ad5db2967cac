"""A rank that dies or hangs ends all, and is named."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from mpi import ROOT, mpiexec

HANG = ROOT / "tests" / "ranks" / "hang.py"


def living(mark):
    """Return the processes that have a mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark.encode() in (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if marked and state != "Z":
            found.append(int(process.name))
    return found


def assert_all_gone(mark):
    deadline = time.monotonic() + 5
    while living(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = living(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.parametrize(
    "how,where",
    [
        ("sleep", r"at step 2 for [2-9] s; the others wait at the sum"),
        ("stop", r"at step 2 for [2-9] s; the others wait at the sum"),
        ("inside", r"at step 2 for [2-9] s(; rank \d .* step 2 for [2-9] s)*"),
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


def test_a_slow_rank_is_waited_for():
    done = mpiexec(3, HANG, "slow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 3
    assert done.stderr == ""
