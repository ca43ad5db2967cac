"""The link against the whole batch in float64, on 1 to 4 ranks."""

import pytest
from mpi import run_tests


def test_exactness():
    run_tests(4, "exactness_cases.py", "-k", "not 2_ranks")


@pytest.mark.slow
def test_exactness_on_two_ranks():
    run_tests(2, "exactness_cases.py", "-k", "2_ranks")


@pytest.mark.slow
def test_exactness_by_mpi():
    run_tests(3, "exactness_cases.py", env={"CHAINER_CROSSBN_COLLECTIVE": "mpi"})
