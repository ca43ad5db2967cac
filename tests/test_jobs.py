"""The job scripts, run for real; srun, mpirun and scontrol are stubs before mpiexec."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import pytest
from mpi import ROOT

from chainer_crossbn.commands.experiments import main

JOBS = ROOT / "jobs"
SCRIPTS = sorted(JOBS.glob("*.sh"))
TINY = (
    "--dataset synthetic --train-size 40 --test-size 20 --width 4 --fc-units 8 --cpu "
    "--threads 1 --no-model --epoch"
)
NETWORKS = ["none", "normal", "multigpu"]


@pytest.fixture
def start(tmp_path):
    """Return a function that runs a job script, and has its output."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, body in {
        "srun": '[ "$1" = --mpi=pmi2 ] && shift\nexec mpiexec "$@"',
        "mpirun": '[ "$1 $2" = "-npernode 4" ] && shift 2\n'
        '[ "$1 $2 $3 $4" = "-x PATH -x LD_LIBRARY_PATH" ] && shift 4\n'
        'exec mpiexec "$@"',
        "scontrol": f'echo "$@" >>{tmp_path}/scontrol',
    }.items():
        (stubs / name).write_text(f"#!/bin/sh\n{body}\n")
        (stubs / name).chmod(0o755)
    path = os.pathsep.join(
        [str(stubs), os.path.dirname(sys.executable), os.environ["PATH"]]
    )

    def run(script, *words, epochs=1, **variables):
        return subprocess.run(
            ["sh", JOBS / script, *words],
            cwd=ROOT,
            env={
                **os.environ,
                **{"PATH": path, "OUT": str(tmp_path / "result"), "BATCHSIZE": "4"},
                **{"FLAGS": f"{TINY} {epochs}", "CHAINER_CROSSBN_TIMEOUT": "30"},
                **variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


def runs(tmp_path):
    """Return the ranks of each run that came to its end."""
    found = (tmp_path / "result").glob("*/statistics.json")
    arguments = {p.parent.name: p.with_name("args.json") for p in found}
    return {
        name: json.loads(path.read_text())["n_ranks"]
        for name, path in arguments.items()
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_shell_reads_it(script):
    for shell in filter(shutil.which, ("bash", "dash", "sh")):
        subprocess.run([shell, "-n", script], check=True)


@pytest.mark.parametrize("scheduler,mark", [("slurm", "#SBATCH"), ("age", r"#\$")])
def test_they_ask_as_printed_jobs_do(tmp_path, capsys, scheduler, mark):
    out = str(tmp_path / "result")
    main(["--scale", "full", "--out", out, "--only", "fig3", "--print-jobs", scheduler])
    printed = capsys.readouterr().out
    ours = (JOBS / f"{scheduler}.sh").read_text()

    def options(text):
        return set(re.findall(rf"^{mark} (-+[\w-]+)", text, re.M))

    assert options(printed) and options(printed) <= options(ours)
    ranks = "#SBATCH --ntasks=8\n"
    assert (ranks in printed) == (ranks in ours) == (scheduler == "slurm")


@pytest.mark.slow
def test_hostfile(tmp_path, start):
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost:2\n")
    done = start("hostfile.sh", hosts, RANKS="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("2 on 1 node\n") == 1, "the doctor"
    assert runs(tmp_path) == {f"{bn}-b4-s0": 2 for bn in NETWORKS}
    assert (tmp_path / "result" / "accuracy.png").exists()
    again = start("hostfile.sh", hosts, RANKS="2")
    assert again.returncode == 0
    assert again.stdout.count("is already finished") == len(NETWORKS)


def test_age(tmp_path, start):
    done = start("age.sh", RANKS="2", MODULES="", VENV="", NETWORKS="multigpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs(tmp_path) == {"multigpu-b4-s0": 2}


@pytest.mark.slow
def test_slurm_queues_again_what_was_stopped(tmp_path, start):
    log = tmp_path / "result" / "multigpu-b4-s0" / "log"
    epochs, queued = [0], 0
    # On a busy machine the time may be up before the first epoch.
    while len(epochs) < 3 and queued < 8:
        done = start(
            "slurm.sh",
            epochs=100000,
            LAUNCH="srun --mpi=pmi2",
            NETWORKS="multigpu none",
            SLURM_JOB_ID="7",
            SLURM_NTASKS="2",
            SLURM_JOB_END_TIME=str(int(time.time()) + 300 + 12),
        )
        assert done.returncode == 75, done.stdout + done.stderr
        assert "time limit reached at multigpu-b4-s0" in done.stdout
        queued += 1
        if log.exists() and len(json.loads(log.read_text())) > epochs[-1]:
            epochs.append(len(json.loads(log.read_text())))
    assert len(epochs) == 3, "it gets on, and goes on"
    assert (tmp_path / "scontrol").read_text() == "requeue 7\n" * queued
    assert runs(tmp_path) == {}
    assert not (tmp_path / "result" / "none-b4-s0").exists()


def test_a_doctor_who_says_no_is_heard(tmp_path, start):
    done = start("hostfile.sh", RANKS="2", OUT="/proc/result")
    assert done.returncode == 2
    assert "can't be written into /proc" in done.stdout
    assert "run: " not in done.stdout


def test_a_run_that_fails_ends_it(tmp_path, start):
    done = start("hostfile.sh", RANKS="2", FLAGS="--dataset nonsense")
    assert done.returncode == 2
    assert "none-b4-s0 did not finish (exit status 2)" in done.stderr
    assert runs(tmp_path) == {}
