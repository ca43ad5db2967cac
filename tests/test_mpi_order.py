"""Ranks that do not reach the same layers: all raise an error, and none hangs."""

import json
import re
from pathlib import Path

import pytest
from mpi import mpiexec, run_tests

PROGRAM = Path(__file__).parent / "ranks" / "order.py"
ITERATIONS = [(2, 1), (3, 50), (3, 1), (4, 50)]
# These reduce by MPI, the others in shared memory.
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


# The same, for orders that all ranks have checked before.
KNOWN = {
    "other": ("/second forward (9 numbers)", "/third forward (9 numbers)"),
    "wide or narrow": ("/wide forward (17 numbers)", "/second forward (9 numbers)"),
}


def errors_of(n_ranks, fault, iteration):
    # The exit status depends on how MPI ends with messages that nobody receives.
    env = {"CHAINER_CROSSBN_TIMEOUT": "1"}
    if (n_ranks, iteration) in BY_MPI:
        env["CHAINER_CROSSBN_COLLECTIVE"] = "mpi"
    done = mpiexec(n_ranks, PROGRAM, fault, iteration, env=env, timeout=60)
    assert done.stdout.startswith("["), done.stderr
    return json.loads(done.stdout.splitlines()[0])


@pytest.mark.parametrize("n_ranks,iteration", ITERATIONS)
@pytest.mark.parametrize("fault", PLACES)
def test_all_ranks_tell_where_each_is(fault, n_ranks, iteration):
    others, last = PLACES[fault]
    where = [f"rank {rank} is at {others}" for rank in range(n_ranks - 1)]
    where.append(f"rank {n_ranks - 1} is at {last}")
    expected = "the ranks did not all reach the same layer: " + "; ".join(where)
    assert errors_of(n_ranks, fault, iteration) == [expected] * n_ranks


@pytest.mark.parametrize("n_ranks", [3, 4])
@pytest.mark.parametrize("fault", KNOWN)
def test_places_of_all_ranks_in_known_orders(fault, n_ranks):
    others, last = KNOWN[fault]
    where = [f"rank {rank} is at {others}" for rank in range(n_ranks - 1)]
    where.append(f"rank {n_ranks - 1} is at {last}")
    expected = "the ranks did not all reach the same layer: " + "; ".join(where)
    assert errors_of(n_ranks, fault, 50) == [expected] * n_ranks


@pytest.mark.parametrize("n_ranks,iteration", [(2, 1), (3, 2), (3, 50)])
def test_a_rank_that_has_ended_is_named(n_ranks, iteration):
    env = {"CHAINER_CROSSBN_TIMEOUT": "1"}
    program = PROGRAM, "one iteration fewer", iteration
    done = mpiexec(n_ranks, *program, env=env, timeout=60)
    # The launcher may join the outputs of two ranks in one line.
    errors = re.findall(r"\[[^\]]*\]", done.stdout)
    assert len(errors) == n_ranks - 1, done.stderr
    for error in errors:
        assert "within 1 s (CHAINER_CROSSBN_TIMEOUT)" in error
        assert f"rank {n_ranks - 1} did not come" in error


@pytest.mark.parametrize("n_ranks,iteration", ITERATIONS[:3])
def test_a_silent_rank_is_named(n_ranks, iteration):
    *errors, silent = errors_of(n_ranks, "no backward", iteration)
    for error in errors:
        assert "within 1 s (CHAINER_CROSSBN_TIMEOUT)" in error
        assert "rank 0 is at /third backward (8 numbers)" in error
        assert f"rank {n_ranks - 1} did not come" in error
    assert silent is None


@pytest.mark.parametrize("n_ranks,iteration", ITERATIONS[:3])
def test_a_late_rank_gets_an_error(n_ranks, iteration):
    *errors, late = errors_of(n_ranks, "late", iteration)
    for error in errors:
        assert "within 1 s (CHAINER_CROSSBN_TIMEOUT)" in error
        assert "rank 0 is at /first forward (9 numbers)" in error
    assert "rank 0 is at /first forward (9 numbers)" in late


def test_without_a_fault_there_is_no_error():
    assert errors_of(3, "none", 3) == [None] * 3


def test_copies_are_layers_of_their_own():
    run_tests(3, "order_cases.py")
