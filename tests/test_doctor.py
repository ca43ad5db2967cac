"""The doctor: real runs, and machines that are not here."""

import os
import re
import subprocess
import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import cuda_on_host
import pytest
from mpi import ROOT, mpiexec, stand_in

from chainer_crossbn.commands.doctor import examination, nodes
from chainer_crossbn.commands.doctor.problems import exit_status

DOCTOR = ("-m", "chainer_crossbn", "doctor")
LEVELS = {"warning": 1, "error": 2}


def status_of(text):
    """Return the exit status for the problems on a screen."""
    levels = re.findall(r"^(warning|error): \S", text, re.M)
    return max((LEVELS[level] for level in levels), default=0)


def alone(env, cwd=ROOT):
    """Run the doctor without a launcher."""
    return subprocess.run(
        [sys.executable, *DOCTOR],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_real_runs(tmp_path, n_ranks):
    done = mpiexec(n_ranks, *DOCTOR, "--out", tmp_path / "result")
    text = done.stdout
    assert done.stderr == ""
    assert done.returncode == status_of(text) < 2
    assert text.count("doctor: ") == 1, "one rank prints"
    assert len(text.splitlines()) <= 24
    assert f"{n_ranks} on 1 node\n" in text
    (error,) = re.findall(r"relative error (\S+)", text)
    assert float(error) < 1e-6
    times = re.findall(r"(\d+ \w+) +([\d.]+) us", text)
    assert [size for size, _ in times] == (["8 B", "16 MiB"] if n_ranks > 1 else [])
    assert all(float(time) > 0 for _, time in times)
    cores = len(os.sched_getaffinity(0))
    assert (f"{n_ranks} ranks share {cores} cores" in text) == (n_ranks > cores)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("collective", ["shared", "mpi"])
def test_the_collective_is_that_of_training(collective):
    env = {"CHAINER_CROSSBN_COLLECTIVE": collective}
    done = mpiexec(2, *DOCTOR, env=env)
    assert f"statistics by {collective}\n" in done.stdout


def test_alone():
    done = alone({})
    assert done.returncode == status_of(done.stdout) < 2, done.stderr
    assert "none, with one rank" in done.stdout


def one_error(done):
    """Return the one line on standard error of a refusal."""
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("--patience", "0"), "'0' is not a number above 0"),
        (("--quick",), "unrecognized arguments: --quick"),
    ],
)
def test_bad_arguments(arguments, message):
    assert message in one_error(mpiexec(2, *DOCTOR, *arguments))


def test_one_rank_prints_the_help():
    done = mpiexec(2, *DOCTOR, "--help")
    assert done.returncode == 0 and done.stdout.count("usage:") == 1


def test_a_directory_that_can_t_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in ("/proc/result", tmp_path / "file"):
        done = mpiexec(2, *DOCTOR, "--out", out)
        assert done.returncode == status_of(done.stdout) == 2
        assert "results can't be written into" in done.stdout


def test_settings_that_are_wrong():
    env = {"CHAINER_CROSSBN_TIMEOUT": "soon"}
    done = mpiexec(2, *DOCTOR, env=env)
    assert done.returncode == status_of(done.stdout) == 2
    assert "CHAINER_CROSSBN_TIMEOUT is 'soon'" in done.stdout


ONE_RANK_DIFFERS = """
import os, sys
from mpi4py import MPI
from chainer_crossbn.commands import doctor
if MPI.COMM_WORLD.rank == 1:
    {change}
sys.exit(doctor.main([{arguments}]))
"""


def test_versions_that_differ():
    change = "import importlib.metadata as m; m.version = lambda name: '1'"
    code = ONE_RANK_DIFFERS.format(change=change, arguments="")
    done = mpiexec(2, "-c", code)
    assert done.returncode == status_of(done.stdout) == 2
    assert re.search("rank 1 on .* its version of chainer is 1, not", done.stdout)


def test_a_normalization_that_is_wrong():
    change = (
        "from chainer_crossbn.commands.doctor import measurements as m; "
        "m.CrossBatchNormalization.eps = property(lambda self: 1.0, lambda *_: None)"
    )
    code = ONE_RANK_DIFFERS.format(change=change, arguments="")
    done = mpiexec(2, "-c", code)
    assert done.returncode == status_of(done.stdout) == 2
    assert "normalization is wrong" in done.stdout


def test_a_rank_that_does_not_come():
    code = ONE_RANK_DIFFERS.format(
        change="import time; time.sleep(100)", arguments="'--patience', '4'"
    )
    done = mpiexec(2, "-c", code, timeout=60)
    assert done.returncode != 0
    assert re.search(r"rank 0 \(PID .* for 4 s", done.stderr)


@pytest.mark.parametrize(
    "size,rank",
    [
        ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
        ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ],
)
def test_launcher_of_another_library(size, rank):
    # The launcher has started two processes, and each is the only rank.
    first, second = (alone({size: "2", rank: number}) for number in "01")
    assert "the launcher started 2 processes" in one_error(first)
    assert (second.returncode, second.stdout, second.stderr) == (2, "", "")


def test_no_mpi_library(tmp_path):
    # Instead of the real one.
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("")
    (tmp_path / "mpi4py" / "MPI.py").write_text(
        "raise RuntimeError('cannot load\\nMPI library')"
    )
    done = alone({"PYTHONPATH": f"{tmp_path}:{ROOT}"}, cwd=tmp_path)
    assert "import mpi4py.MPI fails: cannot load MPI library" in one_error(done)


# With what stands in for CuPy


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.mark.parametrize(
    "n_ranks,env,status,message",
    [
        (2, {"STAND_IN_NCCL": "0"}, None, "statistics by staged\n"),
        (2, {"STAND_IN_DEVICES": "1"}, 1, "training would run on CPUs"),
        (1, {"STAND_IN_CAPABILITY": "37"}, 2, "CUDA 12 does not compile for"),
    ],
)
def test_gpus(cache, n_ranks, env, status, message):
    env = stand_in({cuda_on_host.CACHE: cache, **env})
    done = mpiexec(n_ranks, *DOCTOR, env=env, timeout=240)
    assert message in done.stdout, done.stderr
    assert done.returncode == status_of(done.stdout)
    assert status in (None, done.returncode)


# Machines that are not here


def node(host="a", n_ranks=2, cores=8, **facts):
    return nodes.Node(host=host, n_ranks=n_ranks, cores=cores, **facts)


GPU = nodes.GPU("A100", 80, 40 << 30)


@pytest.mark.parametrize(
    "facts",
    [
        {"shm": 32 << 30},
        {"gpu_error": "CuPy is not installed"},
        {"gpus": (GPU, GPU), "cuda": 12040},
        {"gpus": (GPU._replace(capability=37),), "cuda": 11080},
        {"gpus": (GPU._replace(capability=75),), "cuda": 13000},
        {"gpus": (GPU._replace(capability=30),), "cuda": 10020},
    ],
)
def test_a_node_that_is_ready(facts):
    assert list(nodes.check_node(node(**facts), on_gpu="gpus" in facts)) == []


@pytest.mark.parametrize(
    "status,facts",
    [
        (1, {"cores": 1}),
        (1, {"shm": 63 << 20}),
        (1, {"gpu_error": "no CUDA driver", "has_gpus": True}),
        (1, {"gpus": (GPU,), "cuda": 12040}),
        (2, {"gpus": (GPU._replace(capability=70),), "cuda": 13000}),
    ],
)
def test_a_node_that_is_not_ready(status, facts):
    problems = list(nodes.check_node(node(**facts), on_gpu=status == 2))
    assert exit_status(problems) == status
    assert all("\n" not in problem.message for problem in problems)


def test_nodes_that_are_alike_take_one_line():
    alike = [node(f"n{number}", gpus=(GPU, GPU)) for number in range(64)]
    first, kind = examination.describe_nodes(alike)
    assert first == "128 on 64 nodes"
    assert kind.startswith("n0, n1, n2, ... (64 nodes): 2 ranks, 8 cores, 4 threads")
