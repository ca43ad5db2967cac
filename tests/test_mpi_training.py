"""Training steps, evaluation and statistics on 1 to 4 ranks."""

from mpi import run_tests


def test_training():
    run_tests(4, "training_cases.py")
