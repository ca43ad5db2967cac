"""The cache of compiled kernels, which may fail in any way."""

import os
import resource
import subprocess
import sys

import pytest
from mpi import ROOT

CODE = """
import numpy
from chainer_crossbn.kernels.cpu import sgd

x = numpy.ones(3, numpy.float32)
sgd.momentum_sgd(x, x.copy(), x.copy(), 0.5, 0.0, 0.0)
print(x[0], sum(sgd._momentum_sgd.stats.cache_hits.values()))
"""


def updated(cache, **options):
    """Return what a process prints: the updated value, and the hits of the cache."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=env,
        text=True,
        capture_output=True,
        timeout=240,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def truncated_to(size):
    return lambda data: data[:size]


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes(255 - b for b in data[middle:])


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    assert updated(cache) == ["0.5", "0"]
    return cache


@pytest.mark.parametrize("damage", [truncated_to(0), truncated_to(100), flipped])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damaged_files_are_replaced(filled, suffix, damage):
    paths = list(filled.rglob(f"*momentum_sgd*.{suffix}"))
    assert paths
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
    assert updated(filled) == ["0.5", "0"]
    assert updated(filled) == ["0.5", "1"]


def test_files_that_cannot_be_written(tmp_path):
    def limit_size_of_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    cache = tmp_path / "cache"
    assert updated(cache, preexec_fn=limit_size_of_files) == ["0.5", "0"]
    assert updated(cache) == ["0.5", "0"]
