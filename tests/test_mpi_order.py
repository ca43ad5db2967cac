"""Ranks that do not reach the same layers: all raise an error, and none hangs."""

import functools
import json
import re
from pathlib import Path

import pytest
from mpi import mpiexec, run_tests

PROGRAM = Path(__file__).parent / "ranks" / "order.py"
# (number of ranks, iteration of the fault). The ranks share memory but in BY_MPI.
ITERATIONS = [(2, 1), (3, 50), (3, 1), (4, 50)]
BY_MPI = (3, 1), (4, 50)
# Fault of the last rank: (place of the others, place of the last).
PLACES = {
    "order": ("/second forward (9 numbers)", "/third forward (9 numbers)"),
    "channels": ("/second forward (9 numbers)", "/wide forward (17 numbers)"),
    "skip": ("/second forward (9 numbers)", "/third forward (9 numbers)"),
    "skip the last": ("/third forward (9 numbers)", "/second backward (8 numbers)"),
    "part of backward": (
        "/third backward (8 numbers)",
        "/second forward (9 numbers)",
    ),
}


# The same where the ranks have taken either order before.
KNOWN = {
    "other": ("/second forward (9 numbers)", "/third forward (9 numbers)"),
    "wide or narrow": ("/wide forward (17 numbers)", "/second forward (9 numbers)"),
}


# A rank that leaves ends the launch, so that there is one for each number of ranks.
LEAVES = {2: 1, 3: 2, 4: 50}


def case(n_ranks, fault, iteration):
    collective = ("mpi",) if (n_ranks, iteration) in BY_MPI else ("shared",)
    return ", ".join((fault, str(iteration), *collective))


@functools.cache
def launch(n_ranks):
    """Make all faults, and have the last rank leave at last.

    Returns:
        tuple: A dict of lists of errors, by case, and what the ranks printed that were
        left.
    """
    cases = [
        case(n_ranks, fault, iteration)
        for size, iteration in ITERATIONS
        if size == n_ranks
        for fault in (*PLACES, "no backward", "late", "none")
    ]
    if n_ranks > 2:
        cases += [case(n_ranks, fault, 50) for fault in KNOWN]
    # The exit status says how MPI ends with messages that no rank takes any more.
    env = {"CHAINER_CROSSBN_TIMEOUT": "1"}
    cases.append(f"leaves, {LEAVES[n_ranks]}")
    done = mpiexec(n_ranks, PROGRAM, *cases, env=env, timeout=240)
    assert done.stdout.startswith("{"), done.stderr
    first, _, rest = done.stdout.partition("\n")
    return json.loads(first), rest


def errors_of(n_ranks, fault, iteration):
    return launch(n_ranks)[0][case(n_ranks, fault, iteration)]


def message(n_ranks, others, last):
    """Return the message where the last rank is elsewhere."""
    where = [f"rank {rank} is at {others}" for rank in range(n_ranks - 1)]
    where.append(f"rank {n_ranks - 1} is at {last}")
    return "the ranks did not all reach the same layer: " + "; ".join(where)


@pytest.mark.parametrize("n_ranks,iteration", ITERATIONS)
@pytest.mark.parametrize("fault", PLACES)
def test_all_ranks_tell_where_each_is(fault, n_ranks, iteration):
    expected = message(n_ranks, *PLACES[fault])
    assert errors_of(n_ranks, fault, iteration) == [expected] * n_ranks


@pytest.mark.parametrize("n_ranks", [3, 4])
@pytest.mark.parametrize("fault", KNOWN)
def test_places_of_all_ranks_in_known_orders(fault, n_ranks):
    expected = message(n_ranks, *KNOWN[fault])
    assert errors_of(n_ranks, fault, 50) == [expected] * n_ranks


@pytest.mark.parametrize("n_ranks", LEAVES)
def test_a_rank_that_has_ended_is_named(n_ranks):
    # The launcher may put what two ranks print on one line.
    errors = re.findall(r"\[[^\]]*\]", launch(n_ranks)[1])
    assert len(errors) == n_ranks - 1
    for error in errors:
        assert "within 1 s (CHAINER_CROSSBN_TIMEOUT)" in error
        assert f"rank {n_ranks - 1} did not come" in error


@pytest.mark.parametrize("n_ranks,iteration", ITERATIONS)
def test_a_silent_rank_is_named(n_ranks, iteration):
    *errors, silent = errors_of(n_ranks, "no backward", iteration)
    for error in errors:
        assert "within 1 s (CHAINER_CROSSBN_TIMEOUT)" in error
        assert "rank 0 is at /third backward (8 numbers)" in error
        assert f"rank {n_ranks - 1} did not come" in error
    assert silent is None


@pytest.mark.parametrize("n_ranks,iteration", ITERATIONS)
def test_a_late_rank_gets_an_error(n_ranks, iteration):
    *errors, late = errors_of(n_ranks, "late", iteration)
    for error in errors:
        assert "within 1 s (CHAINER_CROSSBN_TIMEOUT)" in error
        assert "rank 0 is at /first forward (9 numbers)" in error
    assert "rank 0 is at /first forward (9 numbers)" in late


@pytest.mark.parametrize("n_ranks,iteration", ITERATIONS)
def test_without_a_fault_there_is_no_error(n_ranks, iteration):
    assert errors_of(n_ranks, "none", iteration) == [None] * n_ranks


def test_copies_are_layers_of_their_own():
    run_tests(3, "order_cases.py")


NORMALIZE = """
import chainer_crossbn, chainermn, numpy
from mpi4py import MPI
comm = chainermn.create_communicator("naive")
x = numpy.ones((3, 4), numpy.float32)
try:
    chainer_crossbn.CrossBatchNormalization(4, comm)(x)
except ValueError as error:
    assert "CHAINER_CROSSBN_COLLECTIVE" in str(error)
    print("refused", flush=True)
MPI.Finalize()
"""


def test_a_misspelt_collective_is_refused():
    env = {"CHAINER_CROSSBN_COLLECTIVE": "shraed"}
    done = mpiexec(2, "-c", NORMALIZE, env=env)
    assert done.stdout.split() == ["refused"] * 2


def test_a_program_may_finalize_mpi():
    done = mpiexec(2, "-c", NORMALIZE)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
