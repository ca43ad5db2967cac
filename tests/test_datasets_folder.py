"""Class directories and lists of image files as data sets."""

import os

import numpy as np
import pytest
from image_trees import truncate, write

from chainer_crossbn import datasets
from chainer_crossbn.datasets import decoding, folder
from chainer_crossbn.datasets.loading import Loader, Request


@pytest.fixture
def tree(tmp_path):
    return write(tmp_path / "data", {"train": 4, "val": 2})


def load(root, name="folder", **options):
    return datasets.load(name, root, **{"side": 32, **options})


def names(images):
    return [os.path.basename(images.path(i)) for i in range(len(images))]


def refused(root, message, name="folder", **options):
    with pytest.raises(datasets.DatasetError, match=message) as raised:
        load(root, name, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_class_directories(tree, name):
    data = load(tree, name)
    assert (data.name, data.n_class, data.notes) == (name, 3, ())
    assert data.train_images.shape == (12, 3, 32, 32)
    assert data.test_images.shape == (6, 3, 32, 32)
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.train_labels.dtype == np.int32
    assert names(data.train_images) == ["0.png", "1.jpg", "2.png", "3.jpg"] * 3
    assert data.test_images.path(5) == str(tree / "val/cat/1.jpg")
    for index in range(12):
        out = np.empty((3, 32, 32), np.uint8)
        data.train_images.make(index, None, out)
        assert (out == decoding.read(data.train_images.path(index), 32)).all()


def test_test_directory_nested_directories_and_hidden_files(tree):
    (tree / "val").rename(tree / "test")
    (tree / "train/ant/below").mkdir()
    (tree / "train/ant/0.png").rename(tree / "train/ant/below/0.png")
    (tree / "train/ant/.DS_Store").write_text("no image")
    (tree / "train/.cache").mkdir()
    data = load(tree)
    assert names(data.train_images)[:4] == ["1.jpg", "2.png", "3.jpg", "0.png"]
    assert data.n_class == 3 and len(data.test_images) == 6


def test_lists(tree):
    (tree / "train/bee/0.png").rename(tree / "train/a b.png")
    lines = ["train/cat/1.jpg 0", "train/a b.png 1", "train/ant/0.png\t1\r"]
    (tree / "train.txt").write_text("\n".join(lines) + "\n")
    (tree / "val.txt").write_text(f"val/ant/1.jpg 1\n{tree}/val/cat/0.png 0")
    data = load(tree)
    assert data.n_class == 2
    assert names(data.train_images) == ["1.jpg", "a b.png", "0.png"]
    assert data.train_labels.tolist() == [0, 1, 1]
    assert data.test_images.path(0) == str(tree / "val/ant/1.jpg")
    assert data.test_images.path(1) == str(tree / "val/cat/0.png")
    assert data.test_labels.tolist() == [1, 0]
    data.train_images.make(1, None, np.empty((3, 32, 32), np.uint8))


def test_a_list_for_testing_with_directories_for_training(tree):
    """As ImageNet's validation images are in one directory."""
    for i, path in enumerate(sorted((tree / "val").rglob("*.*"))):
        path.rename(tree / "val" / f"{i}{path.suffix}")
    for name in ("ant", "bee", "cat"):
        (tree / "val" / name).rmdir()
    refused(tree, "val has no images.*val.txt")
    (tree / "val.txt").write_text("val/5.jpg 2\nval/0.png 0\n")
    data = load(tree, "imagenet")
    assert (data.n_class, data.test_labels.tolist()) == (3, [2, 0])
    assert names(data.test_images) == ["5.jpg", "0.png"]


@pytest.mark.parametrize(
    "train,val,message",
    [
        ("", "a.png 0", "train.txt has no images"),
        ("a.png 0", "", "val.txt has no images"),
        ("a.png 0\na.png", "a.png 0", "train.txt: line 2 "),
        ("a.png 0\n\n", "a.png 0", "train.txt: line 2 "),
        ("a.png ant", "a.png 0", "train.txt: line 1 "),
        ("a.png -1", "a.png 0", "train.txt: line 1 "),
        ("a\0.png 0", "a.png 0", "train.txt: line 1 "),
        ("a.png 0", "a.png 1", "val.txt has the label 1"),
        ("a.png 99999999999999999999", "a.png 0", "train.txt: line 1 "),
        ("none.png 0", "a.png 0", "data/none.png: No such file"),
        ("a.png 0", None, "val.txt"),
    ],
)
def test_wrong_lists(tree, train, val, message):
    (tree / "train/ant/0.png").rename(tree / "a.png")
    (tree / "train.txt").write_text(train)
    if val is not None:
        (tree / "val.txt").write_text(val)
    refused(tree, message)


def test_subsets(tree):
    whole = load(tree)
    part = load(tree, train_size=7, test_size=3)
    assert part.train_labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    chosen = datasets.take_balanced(whole.train_labels, 7, 3)
    paths = [whole.train_images.path(i) for i in chosen]
    assert [part.train_images.path(i) for i in range(7)] == paths
    assert part.checksum != whole.checksum
    refused(tree, "--train-size: 13 images", train_size=13)


def test_indexing_decodes_no_image(tree, monkeypatch):
    images = load(tree).train_images
    monkeypatch.setattr(decoding, "read", None)
    part = images[1::2][np.array([0, 4])]
    assert len(part) == 2 and part.shape == (2, 3, 32, 32)
    assert [part.path(0), part.path(1)] == [images.path(1), images.path(9)]


def test_checksum(tree, tmp_path):
    before = load(tree).checksum
    assert load(tree, side=64).checksum == before
    tree.rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere"
    (moved / "val").rename(moved / "test")
    assert load(moved).checksum == before
    (moved / "train/ant/0.png").rename(moved / "train/ant/00.png")
    assert load(moved).checksum != before


def test_missing_directories(tree, tmp_path):
    refused(None, "needs --data DIR")
    refused(tmp_path / "none", "no directory .*none/train")
    (tree / "val").rename(tree / "other")
    refused(tree, "no directory .*val")


def test_missing_classes_and_images(tree):
    (tree / "val/dog").mkdir()
    refused(tree, "val has the class dog")
    (tree / "val/dog").rmdir()
    for child in (tree / "val").rglob("*.*"):
        child.unlink()
    refused(tree, f"{tree}/val has no images")
    for child in (tree / "train").iterdir():
        child.rename(tree / child.name)
    refused(tree, f"{tree}/train has no images")


def test_broken_files_are_left_out(tree):
    (tree / "train/ant/5.jpg").write_text("no image")
    truncate(tree / "train/cat/1.jpg")
    load(tree)  # opens no file
    (tree / "val/bee/link.jpg").symlink_to("nowhere")
    refused(tree, "val/bee/link.jpg: No such file.*--skip-broken")
    data = load(tree, skip_broken=True, threads=3)
    assert (len(data.train_images), len(data.test_images)) == (11, 6)
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 3
    (note,) = data.notes
    assert note.startswith("3 of 20 files")
    for name in ("ant/5.jpg", "cat/1.jpg", "bee/link.jpg"):
        assert name in note
    for i in range(6):
        (tree / f"train/bee/text{i}.jpg").write_text("no image")
    (note,) = load(tree, skip_broken=True).notes
    assert note.startswith("9 of 26 files") and note.endswith(" 4 more")
    for path in (tree / "val").rglob("*.*"):
        path.unlink()
        path.write_text("no image")
    refused(tree, "can't decode .*val/ant/0.png", skip_broken=True)


def test_subsets_without_broken_files(tree):
    sizes = {"train_size": 6, "test_size": 3}
    before = load(tree, **sizes).checksum
    (tree / "train/bee/9.jpg").write_text("no image")
    (tree / "val/cat/9.jpg").write_text("no image")
    data = load(tree, **sizes, skip_broken=True)
    assert names(data.train_images) == ["0.png", "1.jpg"] * 3
    assert data.checksum == before


def test_a_file_that_breaks_on_decoding(tree):
    truncate(tree / "train/cat/1.jpg")
    data = load(tree)
    loader = Loader(2)
    sound = Request(np.arange(4))
    batches = loader(data.train_images, [sound, Request(np.arange(12))])
    assert next(batches).shape == (4, 3, 32, 32)
    with pytest.raises(datasets.DatasetError, match="train/cat/1.jpg.*--skip-broken"):
        next(batches)
    loader.close()


def test_loading_writes_nothing(tree):
    before = sorted(tree.rglob("*"))
    load(tree, skip_broken=True)
    assert sorted(tree.rglob("*")) == before


def test_a_long_listing_reports_its_progress(tree, monkeypatch):
    monkeypatch.setattr(folder, "_LISTED", 2)
    lines = []
    load(tree, progress=lines.append)
    assert lines and all("listing" in line for line in lines)
