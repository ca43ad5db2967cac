"""Training on image files, and on synthetic images of any size."""

import json
import re
import shutil

import numpy as np
import pytest
from image_trees import truncate, write
from mpi import TRAIN, mpiexec

from chainer_crossbn.commands.train.main import main

SMALL = ("--width", 1, "--fc-units", 4, "--batchsize", 3, "--epoch", 2, "--cpu")
SYNTHETIC = ("--dataset", "synthetic", "--image-size", 40, "--train-size", 20)
TIMES = {"elapsed_time", "train_time", "images_per_second"}


def train(n_ranks, *flags, **options):
    return mpiexec(n_ranks, TRAIN, *SMALL, *flags, **options)


def result(run):
    with np.load(run / "model.npz") as model:
        arrays = {key: v.tobytes() for key, v in model.items()}
    log = json.loads((run / "log").read_text())
    return [{k: v for k, v in e.items() if k not in TIMES} for e in log], arrays


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree") / "data"
    return write(root, {"train": 7, "val": 3})


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory):
    """An uninterrupted run on 2 ranks."""
    out = tmp_path_factory.mktemp("whole")
    flags = ("--dataset", "folder", "--data", tree, "--image-size", 64)
    flags += ("--decode-threads", 1, "--snapshot-interval", 0.5)
    done = train(2, *flags, "--out", out, "--name", "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out / "run"


def test_run(whole, tree):
    record = json.loads((whole / "args.json").read_text())
    assert record["arguments"]["image_size"] == 64
    assert (record["dataset"]["train"], record["dataset"]["test"]) == (21, 9)
    with np.load(whole / "model.npz") as model:
        # Five poolings leave 2 x 2 pixels of 8 channels.
        assert model["fc6/W"].shape == (4, 8 * 2 * 2)
    log, _ = result(whole)
    assert [entry["iteration"] for entry in log] == [4, 8]
    assert [p.name for p in whole.parent.iterdir()] == ["run"]
    assert {p.name for p in tree.iterdir()} == {"train", "val"}


def test_the_number_of_threads_changes_nothing(whole, tree, tmp_path):
    flags = ("--dataset", "folder", "--data", tree, "--image-size", 64)
    flags += ("--decode-threads", 5, "--out", tmp_path, "--name", "run")
    assert train(2, *flags).returncode == 0
    assert result(tmp_path / "run") == result(whole)


def test_resumes_bit_for_bit(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for name in ("model.npz", "statistics.json"):
        (run / name).unlink()
    # Within an epoch.
    *_, middle, last = sorted((run / "snapshots").iterdir())
    shutil.rmtree(last)
    assert int(middle.name) % 4
    done = train(2, "--resume", run)
    assert done.returncode == 0, done.stderr
    assert f"iteration {int(middle.name)}\n" in done.stdout
    assert result(run) == result(whole)


def test_synthetic_images_of_any_size(tmp_path):
    done = train(2, *SYNTHETIC, "--test-size", 10, "--out", tmp_path, "--name", "run")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "args.json").read_text())
    assert record["arguments"]["image_size"] == 40
    assert record["arguments"]["decode_threads"] >= 1


def test_a_broken_file_ends_the_run(tree, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(tree, root)
    truncate(root / "train" / "bee" / "3.jpg")
    flags = ("--dataset", "folder", "--data", root, "--image-size", 64)
    done = train(2, *flags, "--out", tmp_path / "result", "--name", "run")
    assert done.returncode not in (0, 2)
    lines = [line for line in done.stderr.splitlines() if "train_cifar.py" in line]
    assert lines == [line for line in lines if "can't decode" in line]
    assert len(lines) == 1 and "bee/3.jpg" in lines[0] and "--skip-broken" in lines[0]
    assert "Traceback" not in done.stderr
    flags += ("--skip-broken", "--out", tmp_path / "result", "--name", "less")
    done = train(2, *flags)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "note: 1 of 30 files" in line and "bee/3.jpg" in line


@pytest.mark.parametrize(
    "flags,message",
    [
        (("--dataset", "folder"), "--dataset folder needs --data DIR"),
        (
            ("--dataset", "folder", "--data", "none/such"),
            "no directory none/such/train",
        ),
        (
            ("--dataset", "cifar10", "--image-size", "64"),
            "--image-size applies to --dataset folder",
        ),
        (("--image-size", "0"), "--image-size: '0' is not a whole number at least 1"),
        (("--image-size", "1025"), "--image-size: '1025' is not a whole number"),
        (("--skip-broken",), "--skip-broken applies to --dataset folder"),
        (
            ("--dataset", "cifar10", "--decode-threads", "2"),
            "--decode-threads applies to",
        ),
        (("--decode-threads", "0"), "'0' is not a whole number at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_arguments(tmp_path, call, flags, message):
    flags = ("--dataset", "synthetic", *flags, "--out", tmp_path / "result")
    assert_refused(call(main, *SMALL, *flags), message, tmp_path)


@pytest.mark.parametrize(
    "flags,message",
    [
        (("--batchsize", 11), "2 ranks x 11 images .* 21 training images"),
        (("--train-size", 22), "--train-size: 22 images"),
        (("--eval-train", 22), "--eval-train 22 is more than the 21"),
    ],
    ids=["batchsize", "train-size", "eval-train"],
)
def test_bad_sizes(tree, tmp_path, call, flags, message):
    of_tree = ("--dataset", "folder", "--data", tree, "--out", tmp_path / "result")
    done = call(main, *SMALL, "--virtual-ranks", 2, *of_tree, *flags)
    assert_refused(done, message, tmp_path)


def test_a_listed_file_is_missing(tree, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(tree, root)
    (root / "val.txt").write_text("val/cat/0.png 2\nval/cat/none.jpg 2\n")
    flags = ("--dataset", "folder", "--data", root, "--out", tmp_path / "result")
    assert_refused(train(3, *flags), "val/cat/none.jpg: No such file", tmp_path)


def assert_refused(done, message, folder):
    """Check for one line on standard error, exit status 2, and no files."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert re.search(message, line), line
    assert not (folder / "result").exists()


MEASURED = """
import resource, sys
import numpy as np
from chainer_crossbn import datasets
from chainer_crossbn.datasets.loading import Loader, in_order

data = datasets.load("synthetic", train_size={n}, test_size=1, side=256)
loader = Loader(2)
for batch in loader(data.train_images, in_order({n}, 8)):
    assert batch.shape[1:] == (3, 256, 256)
loader.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images():
    peaks = []
    for n in (48, 480):
        done = mpiexec(1, "-c", MEASURED.format(n=n))
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    # All images in memory would take 85 MB more.
    assert peaks[1] - peaks[0] < 20_000
