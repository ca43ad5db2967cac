"""Runs that stop and go on, on 1 and 3 ranks."""

import pytest
from mpi import run_tests


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_restarts(n_ranks):
    run_tests(n_ranks, "restart_cases.py", timeout=600)
