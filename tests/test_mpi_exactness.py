"""The link against the whole batch in float64, on 1 to 4 ranks."""

import pytest
from mpi import run_tests


def test_exactness():
    run_tests(4, "exactness_cases.py")


@pytest.mark.slow
def test_exactness_by_mpi():
    run_tests(3, "exactness_cases.py", env={"CHAINER_CROSSBN_COLLECTIVE": "mpi"})
