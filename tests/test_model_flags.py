"""The flags that choose a network, as a user sees them."""

import json
import shutil

import numpy as np
import pytest
from test_train_cifar import SYNTHETIC, assert_refused, but_times, contents, read, train

from chainer_crossbn.models import MODELS

SMALL = (*("--width", 1, "--batchsize", 4, "--epoch", 2, *SYNTHETIC),)
# The others are trained elsewhere, or as deep as these but for the number of blocks.
TRAINED = ["googlenet", "resnet110", "resnet20", "resnet50"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("models") / "result"


@pytest.mark.parametrize("name", TRAINED)
def test_it_trains(out, name):
    done = train(2, *SMALL, "--model", name, "--epoch", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record, log, _ = read(out / f"{name}-multigpu-b4-r2-s0")
    assert record["arguments"]["model"] == name
    assert record["arguments"]["width"] == 1
    assert record["arguments"]["fc_units"] is None
    assert len(log) == 1
    statistics = out / f"{name}-multigpu-b4-r2-s0" / "statistics.json"
    layers = json.loads(statistics.read_text())["layers"]
    total = MODELS[name].n_normalizations
    assert [layer["layer"].partition(" (")[0] for layer in layers] == [
        f"normalization {i} of {total}" for i in range(1, total + 1)
    ]


def test_images_that_are_too_small_are_refused(tmp_path):
    out = tmp_path / "result"
    done = train(2, *SMALL, "--model", "alexnet", "--out", out)
    assert_refused(
        done,
        "--model alexnet takes images of 63x63 or more; those of synthetic are 32x32",
    )
    assert not out.exists()


@pytest.fixture(scope="module")
def whole(out):
    """A run that keeps all, in which a snapshot is taken after each epoch."""
    flags = ("--model", "resnet20", "--bn-layers", "front:7", "--zero-gamma")
    done = train(2, *SMALL, *flags, "--out", out, "--name", "whole")
    assert done.returncode == 0, done.stderr
    return out / "whole"


def assert_same(run, other):
    _, log, arrays = read(run)
    _, its_log, its_arrays = read(other)
    assert but_times(log) == but_times(its_log)
    assert sorted(arrays) == sorted(its_arrays)
    for name, array in arrays.items():
        assert np.array_equal(array, its_arrays[name]), name


@pytest.mark.parametrize("recompute", [(), ("--recompute",)])
def test_goes_on_bit_for_bit(whole, tmp_path, recompute):
    """With --recompute, too, which changes no result."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for name in ("model.npz", "statistics.json"):
        (run / name).unlink()
    *_, last = sorted((run / "snapshots").iterdir())
    shutil.rmtree(last)
    done = train(2, "--resume", run, *recompute)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "continuing after iteration" in done.stdout
    assert_same(run, whole)
    record = json.loads((run / "args.json").read_text())
    assert record["arguments"]["recompute"] == (True if recompute else None)


def test_recomputed_runs_are_as_others(whole, tmp_path):
    flags = ("--model", "resnet20", "--bn-layers", "front:7", "--zero-gamma")
    done = train(2, *SMALL, *flags, "--recompute", "--profile", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    words = "multigpu-front7-rest-normal-zero-gamma-recompute"
    assert_same(tmp_path / f"resnet20-{words}-b4-r2-s0", whole)


@pytest.mark.parametrize(
    "flags,why",
    [
        (("--model", "resnet56"), "was made with --model resnet20, not resnet56"),
        (("--width", 2), "was made with --width 1, not 2"),
    ],
)
def test_another_network_is_refused(whole, flags, why):
    before = contents(whole)
    assert_refused(train(2, "--resume", whole, *flags), why)
    assert contents(whole) == before
