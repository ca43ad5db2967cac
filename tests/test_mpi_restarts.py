"""Runs that stop and go on, on 1 to 3 ranks."""

import pytest
from mpi import run_tests

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "n_ranks", [2, pytest.param(1, marks=SLOW), pytest.param(3, marks=SLOW)]
)
def test_restarts(n_ranks):
    run_tests(n_ranks, "restart_cases.py", timeout=600)
