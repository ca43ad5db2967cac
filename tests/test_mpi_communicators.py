"""The communicator for host memory on 1 to 4 ranks."""

import pytest
from mpi import run_tests


def test_communicators():
    run_tests(4, "communicator_cases.py")


@pytest.mark.slow
def test_communicators_by_mpi():
    env = {"CHAINER_CROSSBN_COLLECTIVE": "mpi"}
    run_tests(3, "communicator_cases.py", env=env)
