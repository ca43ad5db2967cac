"""The cases of ChainerMN's tests for MultiNodeBatchNormalization."""

from mpi import run_tests


def test_chainermn():
    run_tests(3, "chainermn_cases.py")
