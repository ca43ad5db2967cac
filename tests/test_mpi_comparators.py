"""The comparators and the options of ``--bn`` on 1 to 4 ranks."""

import pytest
from mpi import run_tests


def test_comparators():
    run_tests(4, "comparator_cases.py", "-k", "not 2_ranks")


@pytest.mark.slow
def test_comparators_on_two_ranks():
    run_tests(2, "comparator_cases.py", "-k", "2_ranks")
