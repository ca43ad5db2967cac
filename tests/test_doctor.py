"""The doctor: real runs, and what it says of machines that are not here."""

import os
import re
import shutil
import subprocess
import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import pytest
from mpi import ROOT, mpiexec

from chainer_crossbn.commands.doctor import checks, disk, findings, gpus, launch, screen
from chainer_crossbn.commands.doctor.timing import Time

DOCTOR = ("-m", "chainer_crossbn", "doctor")
LEVELS = {"note": 0, "warning": 1, "error": 2}


def status_of(text):
    """Return the status that the lines of a screen stand for."""
    levels = re.findall(r"^(note|warning|error): \S", text, re.M)
    return max((LEVELS[level] for level in levels), default=0)


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_real_runs(tmp_path, n_ranks):
    done = mpiexec(n_ranks, *DOCTOR, "--out", tmp_path / "result", timeout=60)
    text = done.stdout
    assert done.stderr == ""
    assert done.returncode == status_of(text) < 2
    assert text.count("doctor: ") == 1, "told once"
    assert len(text.splitlines()) <= 24
    assert f"ranks        {n_ranks} on 1 node\n" in text
    assert f"{n_ranks} rank" in text and "statistics by" in text
    rows = re.findall(r"(\d+) (B|KiB|MiB) +([\d.]+) us +([\d.]+) GB/s", text)
    assert [f"{n} {unit}" for n, unit, *_ in rows] == (
        []
        if n_ranks == 1
        else ["8 B", "512 B", "8200 B", "64 KiB", "1 MiB", "4 MiB", "16 MiB"]
    )
    assert all(float(time) > 0 for *_, time, _ in rows)
    if rows:
        time, rate = map(float, rows[-1][2:])
        assert rate == pytest.approx((16 << 20) / time / 1e3, rel=0.01, abs=6e-4)
    cores = len(os.sched_getaffinity(0))
    assert (f"{n_ranks} ranks share {cores} cores" in text) == (n_ranks > cores)
    assert list(tmp_path.iterdir()) == []


def test_alone():
    done = subprocess.run(
        [sys.executable, *DOCTOR], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status_of(done.stdout) < 2, done.stderr
    assert "none, with one rank" in done.stdout


def one_error(done):
    """Return the one line on standard error of a refusal."""
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "words,message",
    [
        (("--patience", "0"), "'0' is not a number above 0"),
        (("--quick",), "unrecognized arguments: --quick"),
    ],
)
def test_bad_arguments(words, message):
    assert message in one_error(mpiexec(2, *DOCTOR, *words))


def test_help_is_told_once():
    done = mpiexec(2, *DOCTOR, "--help")
    assert done.returncode == 0 and done.stdout.count("usage:") == 1


def test_a_directory_that_can_t_be_written():
    done = mpiexec(2, *DOCTOR, "--out", "/proc/result")
    assert done.returncode == 2
    assert "error: results can't be written into /proc: " in done.stdout
    assert "doctor: it can't run like this" in done.stdout


def test_settings_that_are_wrong():
    env = {"CHAINER_CROSSBN_TIMEOUT": "soon"}
    done = mpiexec(2, *DOCTOR, env=env)
    assert done.returncode == 2
    assert "error: CHAINER_CROSSBN_TIMEOUT is 'soon'" in done.stdout


UNLIKE = """
import os, sys
from mpi4py import MPI
from chainer_crossbn.commands import doctor
if MPI.COMM_WORLD.rank == 1:
    {change}
sys.exit(doctor.main([{arguments}]))
"""


def test_versions_that_differ():
    change = "import importlib.metadata as m; m.version = lambda name: '1'"
    code = UNLIKE.format(change=change, arguments="")
    done = mpiexec(2, "-c", code)
    assert done.returncode == 2
    message = "error: rank 1 on .* its version of chainer is 1, not"
    assert re.search(message, done.stdout)


def test_a_rank_that_does_not_come():
    code = UNLIKE.format(
        change="import time; time.sleep(100)", arguments="'--patience', '4'"
    )
    done = mpiexec(2, "-c", code, timeout=60)
    assert done.returncode != 0
    line = "rank 0 (PID .* has been at the first exchange of messages for 4 s"
    assert re.search(line.replace("(", r"\("), done.stderr)


def test_launcher_of_another_library():
    # As a launcher tells two processes that each find themselves alone.
    for rank in range(2):
        told = {"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": str(rank)}
        done = subprocess.run(
            [sys.executable, *DOCTOR],
            cwd=ROOT,
            env={**os.environ, **told},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if rank == 0:
            assert "the launcher started 2 processes" in one_error(done)
        else:
            assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_what_launchers_tell():
    assert launch.told({}) == (1, 0)
    assert launch.told({"PMI_SIZE": "8", "PMI_RANK": "3"}) == (8, 3)
    assert launch.told({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}) == (4, 1)
    assert launch.told({"SLURM_PROCID": "0"}) == (1, 0), "a batch script"


def test_no_mpi_library(tmp_path):
    # In the way of the real one.
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("")
    (tmp_path / "mpi4py" / "MPI.py").write_text(
        "raise RuntimeError('cannot load\\nMPI library')"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, *DOCTOR], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert "import mpi4py.MPI fails: cannot load MPI library" in one_error(done)


# Machines that are not here


def device(bus, capability=80, name="A100"):
    return {"name": name, "capability": capability, "bus": bus, "memory": 40 << 30}


def rank(host="a", cores=range(8), devices=(), cuda=1240, **changes):
    return {
        **{"host": host, "cores": set(cores), "blas": 1, "time": 1e9},
        **{"memory": 64 << 30, "shm": 32 << 30, "locked": None},
        "gpus": {
            **{"driver": None, "boards": 0, "why": None, "cuda": cuda},
            **{"devices": list(devices), "versions": "CuPy 13"},
        },
        **changes,
    }


def of_nodes(*seen, sizes=None):
    return told(checks.of_nodes(seen, sizes or [len(seen)] * len(seen)))


def told(found):
    found = list(found)
    assert all("\n" not in finding.words for finding in found)
    return findings.status(found), " ".join(finding.words for finding in found)


def test_a_good_node():
    assert of_nodes(rank(), rank()) == (0, "")
    seen = [rank(devices=[device("0"), device("1")])] * 2
    assert told(checks.of_gpus(seen)) == (0, "")
    assert told(checks.of_times([Time(8, 5e-6, "statistics")], 0.0)) == (0, "")


@pytest.mark.parametrize(
    "change,status,words",
    [
        ({"cores": {3}}, 1, "a: 2 ranks share 1 cores"),
        ({"blas": 8}, 0, "BLAS would start 8 threads in each of 2 ranks on 8 cores"),
        ({"memory": 1 << 30}, 1, "1.0 GiB of memory are free for 2 ranks"),
        ({"shm": 63 << 20}, 1, "/dev/shm has 63 MiB free for 2 ranks"),
        ({"locked": 64 << 10}, 1, "only 64 KiB may be locked"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_a_node_that_will_hurt(change, status, words):
    found, said = of_nodes(rank(**change), rank(**change))
    assert found == status and words in said


def test_clocks_apart():
    status, said = of_nodes(rank("a"), rank("b", time=1e9 - 30), sizes=[1, 1])
    assert status == 1 and "30 s apart (b is behind)" in said


def test_names_that_hide_nodes():
    status, said = of_nodes(rank("localhost"), rank("localhost"), sizes=[1, 1])
    assert status == 1 and "MPI sees 1 on one node" in said
    # Two containers of one machine.
    status, said = of_nodes(rank("a"), rank("b"), sizes=[2, 2])
    assert status == 1 and "MPI sees 2 on one node" in said


def test_more_ranks_than_gpus():
    seen = [rank(devices=[device("0")])] * 2
    status, said = told(checks.of_gpus(seen))
    assert status == 1 and "2 ranks see 1 GPUs" in said


def test_a_gpu_of_its_own_is_all_that_a_rank_sees():
    seen = [rank(devices=[device(bus)]) for bus in "01"]
    status, said = told(checks.of_gpus(seen))
    assert (status, said) == (0, "")


def test_a_gpu_without_cupy():
    found = rank()["gpus"] | {"driver": "470.256.02", "boards": 8, "why": "no CuPy"}
    status, said = told(checks.of_gpus([rank(gpus=found)]))
    assert status == 1 and "Chainer can't use it: no CuPy" in said


@pytest.mark.parametrize(
    "cuda,capability,works",
    [
        (1180, 37, True),
        (1240, 37, False),
        (1240, 90, True),
        (1300, 70, False),
        (1300, 75, True),
        (1020, 30, True),
    ],
)
def test_gpus_for_which_cuda_compiles_nothing(cuda, capability, works):
    seen = [rank(devices=[device("0", capability, "board")], cuda=cuda)]
    assert gpus.too_old(seen[0]["gpus"]) == ([] if works else ["board"])
    assert told(checks.of_gpus(seen))[0] == (0 if works else 2)


def test_slow_messages():
    status, said = told(checks.of_times([Time(8, 0.0123, "statistics")], 7.5))
    assert status == 1
    assert "8 bytes takes 12.3 ms" in said and "load average 7.5" in said


def test_a_disk_that_is_nearly_full(tmp_path):
    found = disk.look(str(tmp_path / "a" / "b"))
    assert found["path"] == str(tmp_path) and found["error"] is None
    assert 0 < found["free"] < shutil.disk_usage(tmp_path).total
    assert found["rate"] > 0
    status, said = told(checks.of_disk({**found, "free": 10**9}, "result"))
    assert status == 1 and "1.0 GB are free for result" in said


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    found = disk.look(str(tmp_path / "file"))
    assert found["error"]
    assert told(checks.of_disk(found, "file"))[0] == 2


def test_many_nodes_fit_on_the_screen():
    devices = [device("0"), device("1")]
    seen = [rank(f"n{i}", devices=devices) for i in range(64) for _ in "ab"]
    found = {"path": "/d", "free": 5e9, "rate": 1e8, "error": None}
    lines = screen.lines(["Python"], seen, ["device"], [], found, [])
    assert "ranks        128 on 64 nodes" in lines
    assert any(
        "n0, n1, n2, ... (64 nodes): 2 ranks, 8 cores, 4 threads a rank, 2 GPUs" in line
        for line in lines
    )
    assert any("2 x A100 (8.0, 40.0 GiB)" in line for line in lines)
    assert lines[-1] == "doctor: all well"
