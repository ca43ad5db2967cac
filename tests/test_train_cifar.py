"""``mpiexec -n P python train_cifar.py`` as a user sees it."""

import contextlib
import json
import os
import pickle
import pty
import re
import threading

import numpy as np
import pytest
from mpi import TRAIN, mpiexec, train_each

from chainer_crossbn import datasets
from chainer_crossbn.commands.train.main import main

SMALL = ("--width", 1, "--fc-units", 4, "--batchsize", 4, "--epoch", 2)
SYNTHETIC = ("--dataset", "synthetic", "--train-size", 42, "--test-size", 21)
# What two runs of the same seed may differ in.
TIMES = {"elapsed_time", "train_time", "images_per_second"}


def train(n_ranks, *flags, env=None, **options):
    env = {"CUDA_VISIBLE_DEVICES": "", **(env or {})}
    return mpiexec(n_ranks, TRAIN, *flags, env=env, **options)


def read(run):
    """Return the arguments, the log and the arrays of the model of a run."""
    with np.load(run / "model.npz") as model:
        arrays = dict(model)
    record, log = (
        json.loads((run / name).read_text()) for name in ("args.json", "log")
    )
    return record, log, arrays


def contents(run):
    return {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


def but_times(log):
    return [{k: v for k, v in entry.items() if k not in TIMES} for entry in log]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("two_ranks") / "new" / "result"
    done = train(2, *SMALL, *SYNTHETIC, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_run_directory(two_ranks):
    out, _ = two_ranks
    assert os.listdir(out) == ["vgg16-multigpu-b4-r2-s0"]
    run = out / "vgg16-multigpu-b4-r2-s0"
    names = [".lock", "args.json", "log", "model.npz", "snapshots", "statistics.json"]
    assert sorted(os.listdir(run)) == names
    record, log, arrays = read(run)
    assert {
        **{"bn": "multigpu", "model": "vgg16", "width": 1, "fc_units": 4},
        **{"batchsize": 4, "epoch": 2, "momentum": 0.9, "weight_decay": 5e-4},
        **{"communicator": "host", "seed": 0, "eval_train": 21},
    }.items() <= record["arguments"].items()
    assert record["arguments"]["threads"] >= 1
    assert 1 <= record["cores"] <= os.cpu_count()
    assert [rank["rank"] for rank in record["ranks"]] == [0, 1]
    assert len({rank["pid"] for rank in record["ranks"]}) == 2
    assert all(rank["host"] for rank in record["ranks"])
    assert record["device"] == "CPU"
    data = datasets.load("synthetic", train_size=42, test_size=21)
    assert record["dataset"]["name"] == "synthetic"
    assert record["dataset"]["checksum"] == data.checksum
    assert {"chainer", "chainer_crossbn", "mpi", "numpy", "python"} <= set(
        record["versions"]
    )
    # 42 images in global batches of 8, and the last 2, one for each rank
    assert [(entry["epoch"], entry["iteration"]) for entry in log] == [(1, 6), (2, 12)]
    assert len(arrays) == 13 + 3 * 2 + 13 * 5
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_log(two_ranks):
    _, log, _ = read(two_ranks[0] / "vgg16-multigpu-b4-r2-s0")
    parts = ("main", "train/main", "validation/main")
    measured = {f"{part}/{what}" for part in parts for what in ("loss", "accuracy")}
    for entry in log:
        assert set(entry) == measured | TIMES | {"epoch", "iteration", "lr"}
        assert entry["lr"] == pytest.approx(0.01 * (8 / 512) ** 0.5)
        assert 0 < entry["train_time"] < entry["elapsed_time"]
        assert entry["images_per_second"] > 0
        for part, n in (("main", 42), ("train/main", 21), ("validation/main", 21)):
            assert 0 < entry[f"{part}/loss"] < 100
            # a number of images, each counted once
            correct = entry[f"{part}/accuracy"] * n
            assert correct == pytest.approx(round(correct), abs=1e-9)
    assert log[0]["train_time"] < log[1]["train_time"]
    seconds = log[1]["train_time"] - log[0]["train_time"]
    assert log[1]["images_per_second"] == pytest.approx(42 / seconds)


def test_local_statistics(two_ranks):
    out, _ = two_ranks
    text = (out / "vgg16-multigpu-b4-r2-s0" / "statistics.json").read_text()
    statistics = json.loads(text)
    # nothing to compare where all ranks have the same
    assert statistics["test"] == {}
    layers = statistics["layers"]
    # 4 images on each rank, halved in height and width after each stage
    sides = [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3
    assert [layer["values"] for layer in layers] == [4 * s * s for s in sides]
    for index, layer in enumerate(layers):
        assert layer["layer"].startswith(f"normalization {index + 1} of 13 ")
        assert 0 <= layer["mean"] < 1 and 0 <= layer["variance"] < 1
    assert max(layer["mean"] for layer in layers) > 0


def test_console(two_ranks):
    out, done = two_ranks
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("device: CPU (")
    assert lines[1] == f"run: {out / 'vgg16-multigpu-b4-r2-s0'}"
    facts = dict(line.split(": ", 1) for line in lines[2:7])
    assert facts["ranks"] == "2"
    assert facts["images"].startswith("42 training and 21 test images")
    assert facts["global batch"].startswith("8 images, learning rate: ")
    heading, *table = (line.split() for line in lines[7:10])
    assert [row[0] for row in table] == ["1", "2"]
    assert all(len(row) == len(heading) for row in table)
    assert max(map(len, lines[7:10])) <= 100
    log = read(out / "vgg16-multigpu-b4-r2-s0")[1]
    best = max(entry["validation/main/accuracy"] for entry in log)
    assert f"best: {best:.2%}" in lines[10]
    assert lines[11].endswith(f"python plot.py {out / 'vgg16-multigpu-b4-r2-s0'}")
    assert "\033" not in done.stdout


def test_progress_is_shown_on_a_terminal_only(two_ranks, tmp_path):
    assert "Estimated time to finish" not in two_ranks[1].stdout
    terminal, its_end = pty.openpty()
    shown = []

    def read_terminal():
        # Ends in an error once the other end is closed.
        with contextlib.suppress(OSError):
            while text := os.read(terminal, 1 << 16):
                shown.append(text)

    reader = threading.Thread(target=read_terminal)
    reader.start()
    done = train(2, *SMALL, *SYNTHETIC, "--out", tmp_path, stdout=its_end)
    os.close(its_end)
    reader.join(30)
    os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert b"Estimated time to finish" in b"".join(shown)


def test_a_seed_gives_the_same_again(two_ranks, tmp_path):
    _, log, arrays = read(two_ranks[0] / "vgg16-multigpu-b4-r2-s0")
    seeds = {"same": 0, "other": 1}
    common = (*SMALL, *SYNTHETIC, "--out", tmp_path)
    done = train_each(
        2, [(*common, "--seed", seeds[name], "--name", name) for name in seeds]
    )
    assert done.returncode == 0, done.stderr
    for name in seeds:
        _, its_log, its_arrays = read(tmp_path / name)
        same = name == "same"
        assert (but_times(its_log) == but_times(log)) is same
        weights = "fc7/W"
        assert (its_arrays[weights] == arrays[weights]).all() == same


def test_a_run_is_never_overwritten(two_ranks, call):
    out, _ = two_ranks
    run = out / "vgg16-multigpu-b4-r2-s0"
    before = contents(run)
    done = call(main, *SMALL, *SYNTHETIC, "--out", out, "--name", run.name)
    assert_refused(done, "exists already")
    assert contents(run) == before


@pytest.mark.parametrize(
    "bn,has_statistics", [("multigpu", True), ("none", False), ("chainer", True)]
)
def test_networks_on_one_rank(tmp_path, call, bn, has_statistics):
    done = call(main, *SMALL, *SYNTHETIC, "--bn", bn, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    _, log, arrays = read(tmp_path / f"vgg16-{bn}-b4-r1-s0")
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert any("avg_mean" in name for name in arrays) == has_statistics
    assert any(name.endswith("conv/b") for name in arrays) != has_statistics


def test_normal_is_tested_with_each_reading_of_its_statistics(tmp_path):
    done = train(3, *SMALL, *SYNTHETIC, "--bn", "normal", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "vgg16-normal-b4-r3-s0"
    test = json.loads((run / "statistics.json").read_text())["test"]
    assert list(test) == ["averaged", "rank0", "within"]
    _, log, arrays = read(run)
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert any("avg_mean" in name for name in arrays)
    assert not any(name.endswith("conv/b") for name in arrays)
    last = log[-1]
    # after the time is taken, and not each epoch
    assert not any("rank0" in key or "within" in key for key in last)
    for what in ("loss", "accuracy"):
        expected = pytest.approx(last[f"validation/main/{what}"], rel=1e-5)
        assert test["averaged"][what] == expected
    assert len({reading["loss"] for reading in test.values()}) == 3


def test_images_left_out_are_counted(tmp_path, call):
    sizes = ("--train-size", 25, "--test-size", 4)
    flags = (*SMALL[:-2], "--dataset", "synthetic", *sizes, "--epoch", 1)
    done = call(main, *flags, "--virtual-ranks", 3, "--out", tmp_path, "--name", "x")
    assert done.returncode == 0, done.stderr
    assert "left out: 1 of 25 images each epoch" in done.stdout
    _, log, _ = read(tmp_path / "x")
    assert log[0]["iteration"] == 2


def test_no_model_and_no_snapshots(tmp_path, call):
    flags = ("--name", "x", "--no-model", "--snapshot-interval", 0)
    done = call(main, *SMALL, *SYNTHETIC, "--out", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x" / "log").exists()
    assert not (tmp_path / "x" / "model.npz").exists()
    assert not (tmp_path / "x" / "snapshots").exists()


def test_learning_rate_is_halved(tmp_path, call):
    flags = (*SMALL[:-2], *SYNTHETIC, "--epoch", 3, "--lr", 0.01, "--lr-step", 1)
    done = call(main, *flags, "--out", tmp_path, "--name", "x")
    assert done.returncode == 0, done.stderr
    log = read(tmp_path / "x")[1]
    assert [entry["lr"] for entry in log] == pytest.approx([0.01, 0.005, 0.0025])


def write_cifar(folder):
    """Write a small set in the official layout."""
    state = np.random.RandomState(0)
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {
            "data": state.randint(0, 256, (20, 3072)).astype(np.uint8),
            "labels": [i % 10 for i in range(20)],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def test_cifar_from_a_directory(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py")
    done = train(2, *SMALL, "--data", tmp_path, "--out", tmp_path / "result")
    assert done.returncode == 0, done.stderr
    record, log, _ = read(tmp_path / "result" / "vgg16-multigpu-b4-r2-s0")
    assert record["dataset"]["name"] == "cifar10"
    assert (record["dataset"]["train"], record["dataset"]["test"]) == (100, 20)
    assert len(log) == 2


def assert_refused(done, message):
    """One line on standard error, once for all ranks, and exit status 2."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("train_cifar.py: error: ")
    assert re.search(message, lines[0]), lines[0]
    assert done.stdout == ""


@pytest.mark.parametrize(
    "flags,message",
    [
        (("--batchsize", "0"), "--batchsize.*'0' is not a whole number at least 1"),
        (("-b", "2.5"), "-b: '2.5' is not a whole number"),
        (("--lr", "-1"), "--lr: '-1' is not a number above 0"),
        (("--lr", "nan"), "--lr: 'nan' is not a number above 0"),
        (("--lr", "inf"), "--lr: 'inf' is not a number above 0"),
        (("--momentum", "1"), "--momentum: '1' is not a number at least 0 and below 1"),
        (("--dropout", "much"), "--dropout: 'much' is not a number"),
        (("--seed", "-1"), "--seed: '-1' is not a whole number at least 0"),
        (("--epochs", "3"), "unrecognized arguments: --epochs 3"),
        (("--gpu", "--cpu"), "--gpu and --cpu contradict each other"),
        (("--gpu",), "--gpu: (CuPy sees 0 GPUs|Chainer finds no working CuPy)"),
        (("--communicator", "flat"), "--communicator flat needs GPUs"),
        (("--eval-train", "43"), "--eval-train 43 is more than the 42"),
        (("--train-size", "0"), "--train-size.*'0' is not a whole number"),
        (("--train-size", "9999999"), "--train-size: 9999999 images"),
        (("--data", "."), "--dataset synthetic reads no files"),
        (("--name", "a/b"), "--name 'a/b' is not the name of a directory"),
        (("--name", ""), "--name '' is not the name of a directory"),
        (("--name", ".."), "--name '..' is not the name of a directory"),
        (
            ("--dataset", "cifar10", "--data", "none/such"),
            "none/such",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_arguments(tmp_path, call, flags, message):
    out = tmp_path / "result"
    assert_refused(call(main, *SMALL, *SYNTHETIC, "--out", out, *flags), message)
    assert not out.exists()


@pytest.mark.parametrize(
    "flags,message",
    [
        (("--bn", "batch"), "--bn: invalid choice: 'batch'"),
        (("--batchsize", "22"), "2 ranks x 22 images .* 42 training images"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_two_ranks_refuse_bad_arguments_once(tmp_path, flags, message):
    out = tmp_path / "result"
    assert_refused(train(2, *SMALL, *SYNTHETIC, "--out", out, *flags), message)
    assert not out.exists()


def test_bad_time_limit(tmp_path, call, monkeypatch):
    monkeypatch.setenv("CHAINER_CROSSBN_TIMEOUT", "soon")
    done = call(main, *SMALL, *SYNTHETIC, "--out", tmp_path / "result")
    assert_refused(done, "CHAINER_CROSSBN_TIMEOUT is 'soon'; set it to seconds")
    assert not (tmp_path / "result").exists()


def test_out_that_is_a_file(tmp_path, call):
    (tmp_path / "file").write_text("mine")
    done = call(main, *SMALL, *SYNTHETIC, "--out", tmp_path / "file")
    assert_refused(done, "can't create .*file.*; choose another --out")
    assert (tmp_path / "file").read_text() == "mine"


def test_no_cifar_names_both_ways_out(tmp_path):
    # The proxy refuses, so that the test needs no network, and never uses one.
    env = {
        "CHAINER_DATASET_ROOT": str(tmp_path / "cache"),
        "https_proxy": "http://127.0.0.1:9",
    }
    done = train(3, *SMALL, "--out", tmp_path / "result", env=env)
    assert done.returncode == 2
    *progress, last = done.stderr.splitlines()
    assert all(line.startswith("downloading") for line in progress)
    assert re.search("download failed.*--data PATH.*--dataset synthetic", last), last
    assert not (tmp_path / "result").exists()


def test_help():
    done = train(3, "--help")
    assert done.returncode == 0
    assert done.stdout.count("--weight-decay") >= 1
    assert done.stdout.count("usage:") == 1
    assert done.stderr == ""


# Sent to one rank alone.
INTERRUPT = "__import__('os').kill(__import__('os').getpid(), 2)"
RAISE = "raise ArithmeticError('this rank has had enough')"
FAILING = """
import sys
from mpi4py import MPI
from chainer_crossbn.commands.train.main import main
from chainer_crossbn.training import updaters

update_core = updaters.GlobalUpdater.update_core

def fail(updater):
    if updater.iteration == 2 and MPI.COMM_WORLD.rank in {ranks}:
        {failure}
    update_core(updater)

updaters.GlobalUpdater.update_core = fail
sys.exit(main(sys.argv[1:]))
"""


INTERRUPTED = "train_cifar.py: interrupted: there was no snapshot yet; start again"


@pytest.mark.parametrize(
    "ranks,failure,shown",
    [
        ([0], RAISE, "ArithmeticError: this rank has had enough"),
        ([1], RAISE, "ArithmeticError: this rank has had enough"),
        ([0, 1, 2], RAISE, "ArithmeticError: this rank has had enough"),
        ([1], INTERRUPT, INTERRUPTED),
    ],
)
def test_an_error_in_one_rank_ends_all_and_is_shown_once(
    tmp_path, ranks, failure, shown
):
    code = FAILING.replace("{ranks}", str(ranks)).replace("{failure}", failure)
    done = mpiexec(3, "-c", code, *SMALL, *SYNTHETIC, "--out", tmp_path, timeout=60)
    assert done.returncode not in (0, 2)
    lines = done.stderr.splitlines()
    assert lines.count(shown) == 1
    # And a traceback, unless it is an interrupt, but only one.
    assert done.stderr.count("Traceback") == (failure == RAISE)
