"""The commands in a notebook, under a strict umask, and with logs of others."""

import os
import shutil
import stat
import subprocess
import sys

import pytest
from mpi import ROOT
from test_plotting import write_run

from chainer_crossbn.commands.train.main import main
from chainer_crossbn.runs.files import replacing

NOTEBOOK = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}


@pytest.mark.parametrize(
    "command",
    [
        ("plot.py",),
        ("-m", "chainer_crossbn", "scaling"),
        ("-m", "chainer_crossbn", "experiments"),
    ],
    ids=lambda words: words[-1],
)
def test_help_in_a_notebook(command):
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=ROOT,
        env={**os.environ, **NOTEBOOK},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_figures_in_a_notebook(tmp_path):
    write_run(tmp_path, "normal")
    done = subprocess.run(
        [sys.executable, "plot.py", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **NOTEBOOK},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_files_have_the_permissions_of_others(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file") as file:
            file.write(b"content")
    finally:
        os.umask(before)
    mode = stat.S_IMODE((tmp_path / "file").stat().st_mode)
    assert mode == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_finished_run_that_lacks_its_processes(tmp_path, capsys):
    (first, *_) = sorted((ROOT / "reproduction" / "laptop" / "runs").iterdir())
    run = shutil.copytree(first, tmp_path / "run")
    assert main(["--resume", str(run)]) == 0
    assert "already finished" in capsys.readouterr().out
