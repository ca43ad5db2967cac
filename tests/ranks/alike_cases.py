"""Ranks that were not started alike are refused."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from mpi4py import MPI
from test_train_cifar import SMALL, SYNTHETIC

from chainer_crossbn.commands.train import alike
from chainer_crossbn.commands.train.main import main

WORLD = MPI.COMM_WORLD


def no_change(monkeypatch):
    pass


def other_dtype(monkeypatch):
    monkeypatch.setenv("CHAINER_DTYPE", "float64")


def other_timeout(monkeypatch):
    monkeypatch.setenv("CHAINER_CROSSBN_TIMEOUT", "x")


def other_source(monkeypatch):
    monkeypatch.setattr(alike, "Path", lambda _: Path("/nowhere/a/b/c"))


def other_version(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1")


@pytest.mark.parametrize(
    "change,flags,message",
    [
        (no_change, ("--bn", "none"), "its arguments is .* none, not "),
        (other_dtype, (), "its CHAINER_DTYPE is float64"),
        (other_timeout, (), "_TIMEOUT is x, not 30"),
        (other_source, (), "checksum"),
        (other_version, (), "version of chainer is 1"),
    ],
)
def test_a_rank_that_differs(tmp_path, monkeypatch, capsys, change, flags, message):
    out = Path(WORLD.bcast(str(tmp_path))) / "result"
    argv = [*SMALL, *SYNTHETIC, "--out", out]
    if WORLD.rank == 1:
        change(monkeypatch)
        argv += flags
    assert main([str(argument) for argument in argv]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    if WORLD.rank:
        assert shown.err == ""
    else:
        (line,) = shown.err.splitlines()
        assert line.startswith("train_cifar.py: error: ")
        assert re.search(f"rank 1 on .* differs from rank 0: .*{message}", line), line
    assert not out.exists()
