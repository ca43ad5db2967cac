"""The tests in this folder run on all ranks at once, started by tests/test_mpi_*.py."""

import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainermn
import pytest
from mpi4py import MPI


@pytest.fixture(scope="session")
def comm():
    return chainermn.create_communicator("naive")


def pytest_configure(config):
    if MPI.COMM_WORLD.rank:
        config.option.verbose = -2


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and MPI.COMM_WORLD.size > 1:
        # The other ranks would wait for this one for ever.
        print(f"rank {MPI.COMM_WORLD.rank}: {item.nodeid}\n{report.longreprtext}")
        sys.stdout.flush()
        MPI.COMM_WORLD.Abort(1)
