"""Ranks that were not started alike, and caches that many fill at once."""

import os
import subprocess
import sys

import pytest
from mpi import ROOT, mpiexec, run_tests
from test_train_cifar import SMALL, SYNTHETIC, assert_refused

UNLIKE = """
import sys
from mpi4py import MPI
from chainer_crossbn.commands.train.main import main

sys.exit(main([*sys.argv[1:], *["--bn", "none"] * MPI.COMM_WORLD.rank]))
"""


def test_ranks_that_differ_are_told_once(tmp_path):
    flags = (*SMALL, *SYNTHETIC, "--out", tmp_path / "result")
    done = mpiexec(2, "-c", UNLIKE, *flags)
    assert_refused(done, "rank 1 on .* differs from rank 0: its arguments is ")
    assert not (tmp_path / "result").exists()


def test_ranks_that_differ():
    run_tests(3, "alike_cases.py")


@pytest.mark.slow
def test_many_fill_the_cache_of_kernels(tmp_path):
    code = (
        "import numpy; from chainer_crossbn.kernels.cpu import sgd\n"
        "x = numpy.ones(3, numpy.float32)\n"
        "sgd.momentum_sgd(x, x.copy(), x.copy(), 0.5, 0.0, 0.0)\n"
        "print(x[0], sum(sgd._momentum_sgd.stats.cache_hits.values()))"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", code], env=env, text=True, stdout=subprocess.PIPE
        )

    for process in [start() for _ in range(6)]:
        assert process.communicate(timeout=240)[0].startswith("0.5 ")
        assert process.returncode == 0
    last = start()
    assert last.communicate(timeout=60)[0] == "0.5 1\n"
