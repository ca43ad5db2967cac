"""Training steps, evaluation and statistics on 1, 2, 3 and 4 ranks."""

import pytest
from mpi import run_tests


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_training(n_ranks):
    run_tests(n_ranks, "training_cases.py")
