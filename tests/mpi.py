"""Start programs on several MPI ranks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ROOT / "train_cifar.py"

_OPEN_MPI = re.compile(r"^-{70,}\n(.*\n)*?-{70,}\n|^\[\S+:\d+\] PMIX ERROR.*\n", re.M)


# Ranks of MPICH that wait let others run, which share their cores.
_SHARED_CORES = {
    "MPIR_CVAR_POLLS_BEFORE_YIELD": "100",
    "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
}


def mpiexec(n_ranks, *command, timeout=120, cwd=ROOT, env=None, stdout=subprocess.PIPE):
    """Run ``python command...`` on some ranks.

    Returns:
        subprocess.CompletedProcess: With text output, less what Open MPI's launcher
        adds to a failure. A hang ends in ``subprocess.TimeoutExpired``.
    """
    launcher = Path(sys.executable).parent / "mpiexec"
    done = subprocess.run(
        [
            str(launcher if launcher.exists() else "mpiexec"),
            "-n",
            str(n_ranks),
            sys.executable,
            *map(str, command),
        ],
        cwd=cwd,
        env={
            **os.environ,
            "CHAINER_CROSSBN_TIMEOUT": "30",
            "OPENBLAS_NUM_THREADS": "1",
            **_SHARED_CORES,
            "PYTHONPATH": str(ROOT),
            **(env or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=timeout,
    )
    done.stderr = _OPEN_MPI.sub("", done.stderr)
    return done


def train_each(n_ranks, command_lines, **options):
    """Train as ``train_cifar.py`` does for each command line, in one launch.

    Args:
        n_ranks (int): Number of ranks.
        command_lines (list of sequence): Arguments of each training.
        options: Those of :func:`mpiexec`.

    Returns:
        subprocess.CompletedProcess: As of :func:`mpiexec`. The first training that
        fails ends it.
    """
    arguments = [[str(argument) for argument in line] for line in command_lines]
    program = ROOT / "tests" / "ranks" / "trainings.py"
    return mpiexec(n_ranks, program, json.dumps(arguments), **options)


def run_tests(n_ranks, path, *options, timeout=240, env=None):
    """Run the tests of a file in tests/ranks on some ranks; fail if one fails.

    Args:
        n_ranks (int): Number of ranks.
        path (str): The file.
        options (str): Those of pytest.
        timeout (float): Seconds that it may take.
        env (dict): Additional environment variables.
    """
    program = "-m", "pytest", "-q", ROOT / "tests" / "ranks" / path, *options
    done = mpiexec(n_ranks, *program, timeout=timeout, env=env)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert " passed" in done.stdout, done.stdout


def stand_in(env=None):
    """Return the environment in which CuPy is what stands in for it."""
    tests = ROOT / "tests"
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (tests / "stand_in", tests, ROOT))),
        **(env or {}),
    }
