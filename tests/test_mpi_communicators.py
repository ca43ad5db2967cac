"""The communicator for host memory on several ranks."""

import pytest
from mpi import run_tests


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_communicators(n_ranks):
    run_tests(n_ranks, "communicator_cases.py")
