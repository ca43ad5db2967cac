"""Directories of images as data sets."""

import os
import struct
import zlib

import numpy as np
import pytest
from image_trees import picture, truncate, write

from chainer_crossbn import datasets
from chainer_crossbn.datasets import decoding, imagenet
from chainer_crossbn.datasets.index import Index
from chainer_crossbn.datasets.loading import Loader, Request


@pytest.fixture
def tree(tmp_path):
    return write(tmp_path / "data", {"train": 4, "val": 2})


def load(root, name="folder", **options):
    return datasets.load(name, root, **{"side": 32, **options})


def names(images):
    return [os.path.basename(images.path(i)) for i in range(len(images))]


def test_content(tree):
    data = load(tree)
    assert (data.name, data.n_class, data.notes) == ("folder", 3, ())
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


def test_test_and_directories_below_and_hidden_files(tree):
    (tree / "val").rename(tree / "test")
    (tree / "train/ant/below").mkdir()
    (tree / "train/ant/0.png").rename(tree / "train/ant/below/0.png")
    (tree / "train/ant/.DS_Store").write_text("no image")
    (tree / "train/.cache").mkdir()
    data = load(tree)
    assert names(data.train_images)[:4] == ["1.jpg", "2.png", "3.jpg", "0.png"]
    assert data.n_class == 3 and len(data.test_images) == 6


def test_parts(tree):
    whole = load(tree)
    part = load(tree, train_size=7, test_size=3)
    assert part.train_labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    chosen = datasets.take_balanced(whole.train_labels, 7, 3)
    paths = [whole.train_images.path(i) for i in chosen]
    assert [part.train_images.path(i) for i in range(7)] == paths
    assert part.checksum != whole.checksum
    with pytest.raises(datasets.DatasetError, match="--train-size: 13 images"):
        load(tree, train_size=13)


def test_indexing_makes_no_image(tree, monkeypatch):
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


@pytest.mark.parametrize("name", ["train", "val"])
def test_no_directory(tree, name):
    (tree / name).rename(tree / "other")
    with pytest.raises(datasets.DatasetError, match=f"no directory {tree}/{name}"):
        load(tree)


def test_errors(tree, tmp_path):
    def refused(message, name="folder", root=tree):
        with pytest.raises(datasets.DatasetError, match=message) as caught:
            load(root, name)
        assert "\n" not in str(caught.value)

    refused("needs --data DIR", root=None)
    refused("no directory", root=tmp_path / "none")
    (tree / "val/dog").mkdir()
    refused("val has the class dog, which .*train has not")
    (tree / "val/dog").rmdir()
    for child in (tree / "val").rglob("*.*"):
        child.unlink()
    refused(f"{tree}/val has no images")
    for child in (tree / "train").iterdir():
        child.rename(tree / child.name)
    refused(f"{tree}/train has no directories")


def test_broken_files_are_named_or_left_out(tree):
    (tree / "train/ant/5.jpg").write_text("no image")
    (tree / "val/bee/link.jpg").symlink_to("nowhere")
    with pytest.raises(datasets.DatasetError) as caught:
        load(tree)
    assert str(caught.value).startswith(
        f"2 of 20 files are no images: {tree}/train/ant/5.jpg (no image "
    )
    assert f"{tree}/val/bee/link.jpg (No such file" in str(caught.value)
    truncate(tree / "train/cat/1.jpg")
    data = load(tree, skip_broken=True)
    assert (len(data.train_images), len(data.test_images)) == (11, 6)
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 3
    (note,) = data.notes
    assert note.startswith("3 of 20 files are left out") and "cat/1.jpg" in note
    for i in range(6):
        (tree / f"train/bee/text{i}.jpg").write_text("no image")
    with pytest.raises(datasets.DatasetError, match="8 of 26 .* and 3 more; remove"):
        load(tree)


def test_files_that_are_not_chosen_are_not_looked_at(tree):
    (tree / "train/bee/9.jpg").write_text("no image")
    (tree / "val/cat/9.jpg").write_text("no image")
    sizes = {"train_size": 6, "test_size": 3}
    chosen = load(tree, **sizes)
    assert names(chosen.train_images) == ["0.png", "1.jpg"] * 3
    assert load(tree, **sizes, skip_broken=True).checksum == chosen.checksum
    (tree / "train/bee/0.png").write_text("no image")
    with pytest.raises(datasets.DatasetError, match="1 of 9 .*train/bee/0.png"):
        load(tree, **sizes)


def test_what_is_known_of_files_outlasts_a_run_of_others(tree, tmp_path, monkeypatch):
    opened = []
    check = decoding.check
    monkeypatch.setattr(decoding, "check", lambda p: opened.append(p) or check(p))
    for size, n in ((12, 18), (3, 0), (12, 0)):
        opened.clear()
        index = Index(str(tmp_path / "index"))
        load(tree, index=index, train_size=size)
        index.save()
        assert len(opened) == n


def test_a_file_that_breaks_on_decoding(tree):
    truncate(tree / "train/cat/1.jpg")
    data = load(tree)
    loader = Loader(2)
    sound = Request(np.arange(4))
    batches = loader(data.train_images, [sound, Request(np.arange(12))])
    assert next(batches).shape == (4, 3, 32, 32)
    with pytest.raises(datasets.DatasetError, match="can't decode .*train/cat/1.jpg: "):
        next(batches)
    loader.close()


def test_what_is_sound_is_remembered(tree, tmp_path, monkeypatch):
    opened = []
    check, read = decoding.check, decoding.read
    monkeypatch.setattr(decoding, "check", lambda p: opened.append(p) or check(p))
    monkeypatch.setattr(decoding, "read", lambda p, s: opened.append(p) or read(p, s))

    def n_opened(**options):
        opened.clear()
        index = Index(str(tmp_path / "index"))
        found = load(tree, index=index, **options)
        index.save()
        return len(opened), found.checksum

    n, checksum = n_opened()
    assert n == 18
    assert n_opened() == (0, checksum)
    os.utime(tree / "train/ant/0.png", (1, 1))
    assert n_opened() == (1, checksum)
    assert n_opened(skip_broken=True) == (18, checksum)
    assert n_opened(skip_broken=True) == (0, checksum)
    assert n_opened() == (0, checksum)
    (tree / "val/ant/9.jpg").write_text("no image")
    assert n_opened(skip_broken=True) == (1, checksum)
    assert n_opened(skip_broken=True) == (1, checksum)  # it may have been mended
    (kept,) = (tmp_path / "index").iterdir()
    kept.write_bytes(kept.read_bytes()[:-50])
    (tree / "val/ant/9.jpg").unlink()
    assert n_opened() == (18, checksum)
    assert n_opened() == (0, checksum)


def test_nothing_is_written_into_the_data(tree):
    before = sorted(tree.rglob("*"))
    index = Index()
    load(tree, index=index)
    index.save()
    assert sorted(tree.rglob("*")) == before


# ImageNet

WNIDS = ("n01440764", "n02119789", "n03995372")


@pytest.fixture
def flat(tmp_path):
    """The official layout with a flat val, and no file that tells its classes."""
    root = write(tmp_path / "data", {"train": 2}, WNIDS)
    (root / "val").mkdir()
    for i in range(1, 6):
        picture(40, 50, i).save(root / f"val/ILSVRC2012_val_{i:08d}.JPEG")
    return root


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def array(kind, data, name=b"", rest=b""):
    flags = element(6, struct.pack("<II", kind, 0))
    body = flags + element(5, struct.pack("<ii", 1, 1)) + element(1, name) + data + rest
    return element(14, body)


def write_meta(path, names):
    """Write synsets as MATLAB does, compressed, with small elements."""
    fields = (b"ILSVRC2012_ID", b"WNID", b"num_children")
    text = b"".join(field.ljust(16, b"\0") for field in fields)
    values = b""
    for number, name in names.items():
        values += array(6, struct.pack("<HHI", 2, 1, number))  # one byte, in eight
        values += array(4, element(16, name.encode()))
        values += array(6, element(9, struct.pack("<d", 0)))
    width = struct.pack("<HHi", 5, 4, 16)
    matrix = array(2, width + element(1, text), b"synsets", values)
    packed = zlib.compress(matrix)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    path.write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)


def test_directories_in_val(tmp_path):
    root = write(tmp_path / "data", {"train": 2, "val": 1}, WNIDS)
    assert load(root, "imagenet").test_labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("where", ["", "ILSVRC2012_devkit_t12/data"])
def test_flat_val_and_the_development_kit(flat, where):
    (flat / where).mkdir(parents=True, exist_ok=True)
    (flat / where / imagenet.TRUTH).write_text("9\n7\n8\n7\n7\n")
    meta = flat / where / imagenet.META
    write_meta(meta, {7: WNIDS[2], 8: WNIDS[1], 9: WNIDS[0]})
    data = load(flat, "imagenet")
    assert data.test_labels.tolist() == [0, 2, 1, 2, 2]
    assert data.test_labels.dtype == np.int32
    for damaged in (b"", meta.read_bytes()[:-9], b"x" * 300):
        meta.write_bytes(damaged)
        with pytest.raises(datasets.DatasetError, match="meta.mat is not that of"):
            load(flat, "imagenet")
    write_meta(meta, {7: "n00000001", 8: WNIDS[1], 9: WNIDS[0]})
    with pytest.raises(datasets.DatasetError, match="class n00000001, which"):
        load(flat, "imagenet")
    (flat / where / imagenet.TRUTH).write_text("9\n7\nx\n")
    with pytest.raises(datasets.DatasetError, match="line 3 is no class"):
        load(flat, "imagenet")
    (flat / where / imagenet.TRUTH).write_text("9\n7\n8\n")
    with pytest.raises(datasets.DatasetError, match="does not tell the class of .*004"):
        write_meta(meta, {7: WNIDS[2], 8: WNIDS[1], 9: WNIDS[0]})
        load(flat, "imagenet")


def test_flat_val_and_the_list_of_kaggle(flat):
    with pytest.raises(datasets.DatasetError, match="beside it there must be"):
        load(flat, "imagenet")
    lines = [
        f"ILSVRC2012_val_{i:08d},{WNIDS[i % 3]} 85 1 499 272 {WNIDS[i % 3]} 1 2 3 4 "
        for i in (5, 3, 1, 2, 4)
    ]
    text = "\n".join(["ImageId,PredictionString", *lines])
    (flat / imagenet.SOLUTION).write_text(text)
    assert load(flat, "imagenet").test_labels.tolist() == [1, 2, 0, 1, 2]
    (flat / imagenet.SOLUTION).write_text(text + "\nILSVRC2012_val_00000006,")
    with pytest.raises(datasets.DatasetError, match="line 7 is no image"):
        load(flat, "imagenet")
