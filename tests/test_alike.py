"""Ranks that were not started alike, and caches that many fill at once."""

import os
import subprocess
import sys

import pytest
from mpi import ROOT, mpiexec
from test_train_cifar import SMALL, SYNTHETIC, assert_refused

UNLIKE = """
import importlib.metadata, os, sys
from mpi4py import MPI
from chainer_crossbn.commands.train import alike
from chainer_crossbn.commands.train.main import main

argv = sys.argv[1:]
if MPI.COMM_WORLD.rank == 1:
    {change}
sys.exit(main(argv))
"""


@pytest.mark.parametrize(
    "change,message",
    [
        ("argv += ['--bn', 'none']", "its arguments is .* none, not "),
        ("os.environ['CHAINER_DTYPE'] = 'float64'", "its CHAINER_DTYPE is float64"),
        ("os.environ['CHAINER_CROSSBN_TIMEOUT'] = 'x'", "_TIMEOUT is x, not 30"),
        (
            "alike.Path = lambda _: __import__('pathlib').Path('/nowhere/a/b/c')",
            "checksum",
        ),
        ("importlib.metadata.version = lambda name: '1'", "version of chainer is 1"),
    ],
)
def test_ranks_that_differ(tmp_path, change, message):
    flags = (*SMALL, *SYNTHETIC, "--out", tmp_path / "result")
    done = mpiexec(3, "-c", UNLIKE.replace("{change}", change), *flags)
    assert_refused(done, f"rank 1 on .* differs from rank 0: .*{message}")
    assert not (tmp_path / "result").exists()


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
