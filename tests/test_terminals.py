"""What the commands print where the terminal can't show a file's name."""

import pytest
from mpi import ROOT, TRAIN, mpiexec

TINY = ("--width", 1, "--fc-units", 4, "--batchsize", 4, "--epoch", 1)
SYNTHETIC = ("--dataset", "synthetic", "--train-size", 20, "--test-size", 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "Läufe"


@pytest.mark.parametrize(
    "command",
    [
        (TRAIN, *SYNTHETIC, *TINY, "--cpu", "--out"),
        (ROOT / "plot.py",),
        ("-m", "chainer_crossbn", "experiments", "--dry-run", "--out"),
    ],
    ids=["train", "plot", "experiments"],
)
def test_names_of_other_letters(command, folder):
    env = {"PYTHONIOENCODING": "ascii"}
    done = mpiexec(2 if TRAIN in command else 1, *command, folder, env=env)
    assert done.returncode == 0, done.stderr
    assert "L\\xe4ufe" in done.stdout
