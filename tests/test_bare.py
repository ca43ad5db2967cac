"""Where a checkout, Chainer, NumPy, mpi4py and what PyTorch brings are all there is."""

import json
from pathlib import Path

from mpi import ROOT, TRAIN, mpiexec

BARE = {"PYTHONPATH": f"{Path(__file__).parent / 'bare'}:{ROOT}"}
FLAGS = (
    *("--dataset", "synthetic", "--train-size", 20, "--test-size", 20, "--epoch", 1),
    *("--width", 4, "--fc-units", 8, "--batchsize", 10),
)


def test_six_is_this_packages():
    code = "import chainer_crossbn, chainer, six; print(six.__file__)"
    done = mpiexec(1, "-c", code, env=BARE)
    assert done.stdout.strip() == str(ROOT / "chainer_crossbn" / "_six.py"), done.stderr


def test_six_is_pythons_own_where_it_is_installed():
    code = "import chainer_crossbn, chainer, six; print(six.__version__)"
    assert mpiexec(1, "-c", code).returncode == 0


def test_training(tmp_path):
    done = mpiexec(2, TRAIN, *FLAGS, "--out", tmp_path, "--name", "run", env=BARE)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "run" / "log").read_text())
    assert entry["iteration"] == 1


def test_threads_need_threadpoolctl(tmp_path):
    done = mpiexec(2, TRAIN, *FLAGS, "--threads", 1, "--out", tmp_path, env=BARE)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install threadpoolctl" in line
    assert not list(tmp_path.iterdir())


def test_the_same_of_chainer_can_be_imported_as_with_six():
    code = """
import chainer_crossbn, chainer, chainermn, importlib, pkgutil, warnings
warnings.simplefilter("ignore")
missing = []
for package in (chainer, chainermn):
    paths, prefix = package.__path__, package.__name__ + "."
    for module in pkgutil.walk_packages(paths, prefix, missing.append):
        try:
            importlib.import_module(module.name)
        except Exception as error:
            missing.append((module.name, str(error)))
print(len(missing), missing)
"""
    ours, theirs = (
        mpiexec(1, "-c", code, env={**BARE, **more}, timeout=120)
        for more in ({}, {"WITH_SIX": "1"})
    )
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == theirs.stdout
