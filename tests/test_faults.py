"""Nothing is lost when ranks are killed."""

import re
import subprocess
import sys

import pytest
from mpi import ROOT


@pytest.mark.slow
def test_a_few_kills():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "faults" / "campaign.py"), "3"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    counts = dict(re.findall(r"([a-z ]+?) (\d+)(?:, |\n)", done.stdout))
    assert counts["kills"] == "3" and int(counts["resumes"]) >= 1
    for what in ("mismatches", "failures", "orphans"):
        assert counts[what] == "0"
