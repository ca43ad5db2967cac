"""Networks, and blocks that are recomputed, on 1, 2 and 3 ranks."""

import pytest
from mpi import run_tests


def test_models():
    run_tests(2, "model_cases.py")


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_recomputation(n_ranks):
    run_tests(n_ranks, "recomputation_cases.py")
