"""The flags that choose a network, as a user sees them."""

import json
import shutil

import numpy as np
import pytest
from mpi import train_each
from test_train_cifar import SYNTHETIC, assert_refused, but_times, contents, read, train

from chainer_crossbn.commands.train.main import main
from chainer_crossbn.models import MODELS

SMALL = (*("--width", 1, "--batchsize", 4, "--epoch", 2, *SYNTHETIC),)
# The others are trained elsewhere, or as deep as these but for the number of blocks.
TRAINED = ["googlenet", "resnet110", "resnet20", "resnet50"]


RESNET20 = ("--model", "resnet20", "--bn-layers", "front:7", "--zero-gamma")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Return the directory of runs on two ranks; a snapshot is taken each epoch."""
    out = tmp_path_factory.mktemp("models") / "result"
    common = (*SMALL, "--out", out)
    lines = [(*common, "--model", name, "--epoch", 1) for name in TRAINED]
    lines.append((*common, *RESNET20, "--name", "whole"))
    lines.append((*common, *RESNET20, "--recompute", "--profile"))
    done = train_each(2, lines, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


@pytest.mark.parametrize("name", TRAINED)
def test_it_trains(out, name):
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


def test_images_that_are_too_small_are_refused(tmp_path, call):
    out = tmp_path / "result"
    done = call(main, *SMALL, "--model", "alexnet", "--out", out)
    assert_refused(
        done,
        "--model alexnet takes images of 63x63 or more; those of synthetic are 32x32",
    )
    assert not out.exists()


@pytest.fixture(scope="module")
def whole(out):
    """Return a run that was never stopped."""
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


def test_recomputed_runs_are_as_others(out, whole):
    words = "multigpu-front7-rest-normal-zero-gamma-recompute"
    assert_same(out / f"resnet20-{words}-b4-r2-s0", whole)


@pytest.mark.parametrize(
    "flags,why",
    [
        (("--model", "resnet56"), "was made with --model resnet20, not resnet56"),
        (("--width", 2), "was made with --width 1, not 2"),
    ],
)
def test_another_network_is_refused(whole, call, flags, why):
    before = contents(whole)
    assert_refused(call(main, "--resume", whole, *flags), why)
    assert contents(whole) == before
