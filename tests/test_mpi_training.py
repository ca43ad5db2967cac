"""Training steps, evaluation and statistics on 1 to 4 ranks."""

import pytest
from mpi import run_tests


def test_training():
    run_tests(4, "training_cases.py", "-k", "not 2_ranks")


@pytest.mark.slow
def test_training_on_two_ranks():
    run_tests(2, "training_cases.py", "-k", "2_ranks")
