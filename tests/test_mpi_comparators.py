"""The comparators and the options of ``--bn`` on 1, 2, 3 and 4 ranks."""

import pytest
from mpi import run_tests


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_comparators(n_ranks):
    run_tests(n_ranks, "comparator_cases.py")
