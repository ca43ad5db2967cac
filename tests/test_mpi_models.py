"""Networks, and blocks that are recomputed, on 1, 2 and 3 ranks."""

import pytest
from mpi import run_tests


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_models(n_ranks):
    run_tests(n_ranks, "model_cases.py")


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_recomputation(n_ranks):
    run_tests(n_ranks, "recomputation_cases.py")
