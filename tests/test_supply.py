"""What is installed, and what is done with files that come from elsewhere."""

import re
import subprocess
import sys

from mpi import ROOT
from packaging.requirements import Requirement

# What runs code that a file holds.
UNSAFE = r"pickle\.loads?\(|allow_pickle=True|\bextractall\(|os\.system"


def requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_requirement_has_bounds_and_a_tested_version():
    pins = requirements("constraints.txt")
    tested = {pin.name: str(pin.specifier).lstrip("=") for pin in pins}
    for requirement in requirements("requirements.txt"):
        operators = {s.operator for s in requirement.specifier}
        assert operators & {"==", "<"}, requirement
        assert requirement.specifier.contains(tested[requirement.name]), requirement


def test_packages_go_together():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Reads the cache of compiled kernels, which this package has written, as Numba does.
OWN_CACHE = ROOT / "chainer_crossbn" / "kernels" / "cpu" / "compilation.py"


def test_nothing_is_unpickled():
    files = {*ROOT.glob("*.py"), *(ROOT / "chainer_crossbn").rglob("*.py")}
    assert len(files) > 50 and OWN_CACHE in files
    for path in files - {OWN_CACHE}:
        assert not re.search(UNSAFE, path.read_text()), path
