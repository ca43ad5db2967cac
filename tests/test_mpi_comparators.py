"""The comparators and the options of ``--bn`` on 1 to 4 ranks."""

from mpi import run_tests


def test_comparators():
    run_tests(4, "comparator_cases.py")
