"""The communicator for host memory on 1 to 4 ranks."""

import pytest
from mpi import run_tests


@pytest.mark.parametrize("n_ranks,collective", [(4, ""), (3, "mpi")])
def test_communicators(n_ranks, collective):
    env = {"CHAINER_CROSSBN_COLLECTIVE": collective}
    run_tests(n_ranks, "communicator_cases.py", env=env)
