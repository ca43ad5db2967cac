"""The cases of ChainerMN's tests for MultiNodeBatchNormalization."""

import pytest
from mpi import run_tests


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_chainermn(n_ranks):
    run_tests(n_ranks, "chainermn_cases.py")
