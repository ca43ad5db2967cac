"""The link against the whole batch in float64, on 1, 2, 3 and 4 ranks."""

import pytest
from mpi import run_tests


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
def test_exactness(n_ranks):
    run_tests(n_ranks, "exactness_cases.py")


def test_exactness_by_mpi():
    run_tests(3, "exactness_cases.py", env={"CHAINER_CROSSBN_COLLECTIVE": "mpi"})
