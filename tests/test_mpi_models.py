"""Networks on 2 ranks, and blocks that are recomputed on 1 and 2."""

from mpi import run_tests


def test_models():
    run_tests(2, "model_cases.py")


def test_recomputation():
    run_tests(2, "recomputation_cases.py")
