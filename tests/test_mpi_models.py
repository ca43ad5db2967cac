"""Networks on 2 ranks, and blocks that are recomputed on 1 and 2."""

import pytest
from mpi import run_tests


def test_models():
    run_tests(2, "model_cases.py", "-m", "not slow")


@pytest.mark.slow
def test_deep_models():
    run_tests(2, "model_cases.py", "-m", "slow")


def test_recomputation():
    run_tests(2, "recomputation_cases.py", "-k", "2_ranks")


@pytest.mark.slow
def test_recomputation_on_one_rank():
    run_tests(1, "recomputation_cases.py")
