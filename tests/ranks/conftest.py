"""The tests in this folder run on all ranks at once, started by tests/test_mpi_*.py.

Tests with the fixture ``comm`` run on communicators of 1, 2, and so on up to as many
ranks as there are, so that one launch covers all sizes.
"""

import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainermn
import pytest
from mpi4py import MPI

# Of this many ranks, or of the rest. Halves and more cover every size.
SIZES = range(MPI.COMM_WORLD.size, (MPI.COMM_WORLD.size - 1) // 2, -1)


@pytest.fixture(scope="session")
def world():
    """Return a ChainerMN communicator of all ranks."""
    return chainermn.create_communicator("naive")


@pytest.fixture(scope="session", params=SIZES, ids="{}_ranks".format)
def comm(request, world):
    """Return a ChainerMN communicator of this rank and its neighbors."""
    return world.split(int(world.rank >= request.param), world.rank)


def pytest_configure(config):
    if MPI.COMM_WORLD.rank:
        config.option.verbose = -2


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and MPI.COMM_WORLD.size > 1:
        # The other ranks would wait for this one forever.
        print(f"rank {MPI.COMM_WORLD.rank}: {item.nodeid}\n{report.longreprtext}")
        sys.stdout.flush()
        MPI.COMM_WORLD.Abort(1)
