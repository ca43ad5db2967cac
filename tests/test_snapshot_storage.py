"""Snapshots on disk: written whole, verified when read."""

import errno
import json
import os
import zipfile

import numpy as np
import pytest

from chainer_crossbn.training.snapshots import storage


def parts_of(iteration):
    return {
        "shared": {"w": np.full((3, 2), iteration, np.float32), "log": np.array("[]")},
        "rank-0": {"n": np.array(iteration), "f": np.asfortranarray(np.ones((2, 3)))},
    }


def write(folder, iteration, accuracy=None):
    storage.write(str(folder), iteration, parts_of(iteration), {"accuracy": accuracy})


def read_newest(folder):
    notes = []
    snapshot = storage.read_newest(str(folder), notes.append)
    return snapshot and snapshot[0]["iteration"], notes


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run" / "snapshots"
    folder.parent.mkdir()
    return folder


def test_what_is_read_is_what_was_written(folder):
    write(folder, 7, accuracy=0.5)
    about, parts = storage.read(str(folder), 7)
    assert about["iteration"] == 7 and about["accuracy"] == 0.5
    assert parts.keys() == parts_of(7).keys()
    for name, arrays in parts_of(7).items():
        assert parts[name].keys() == arrays.keys()
        for key, array in arrays.items():
            actual = parts[name][key]
            assert actual.dtype == array.dtype and (actual == array).all()
            assert actual.flags.f_contiguous == array.flags.f_contiguous


def test_the_last_two_and_the_most_accurate_are_kept(folder):
    for iteration, accuracy in enumerate([0.1, 0.8, None, 0.8, 0.3, 0.4], start=1):
        write(folder, iteration, accuracy)
    assert storage.iterations(str(folder)) == [6, 5, 2]
    assert sorted(os.listdir(folder)) == ["000000002", "000000005", "000000006"]


def test_an_old_snapshot_that_can_not_be_removed_is_noted(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    for iteration in (1, 2):
        write(folder, iteration)
    notes = []
    monkeypatch.setattr("shutil.rmtree", refuse)
    storage.write(str(folder), 3, parts_of(3), {"accuracy": None}, notes.append)
    (note,) = notes
    assert "000000001" in note and "Permission denied" in note
    assert storage.iterations(str(folder)) == [3, 2]


def test_nothing_there(folder):
    assert read_newest(folder) == (None, [])


def test_objects_are_never_pickled(folder):
    with pytest.raises(ValueError):
        storage.write(str(folder), 1, {"shared": {"x": np.array(None)}}, {})


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("name", ["shared.npz", "rank-0.npz", "manifest.json"])
@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
def test_a_damaged_one_is_skipped(folder, name, damage):
    write(folder, 1)
    write(folder, 2)
    damage(folder / "000000002" / name)
    iteration, notes = read_newest(folder)
    assert iteration == 1
    # Without a manifest it is not a snapshot, as it never was complete.
    assert len(notes) == (damage is not os.unlink or name != "manifest.json")
    assert all("000000002 is damaged and skipped: " in note for note in notes)


def test_every_bit_counts(folder):
    write(folder, 1)
    state = np.random.RandomState(0)
    for path in (folder / "000000001").iterdir():
        content = path.read_bytes()
        for position in state.randint(len(content), size=30):
            changed = bytearray(content)
            changed[position] ^= 1 << state.randint(8)
            path.write_bytes(changed)
            iteration, notes = read_newest(folder)
            # White space of a manifest may become other white space.
            assert iteration is None and len(notes) == 1 or not notes
        path.write_bytes(content)
    assert read_newest(folder) == (1, [])


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b"null", b'{"content": []}', b"[" * 100_000, b"\xff"),
        *(b'{"content": {"files": 1}, "sha256": 2}', b'{"content": 1e999}'),
    ],
)
def test_broken_manifest(folder, content):
    write(folder, 1)
    (folder / "000000001" / "manifest.json").write_bytes(content)
    assert read_newest(folder)[0] is None


def forge(folder, name="shared.npz", **files):
    """Write a manifest that agrees with the files as they are."""
    path = folder / "000000001"
    content = {"iteration": 1, "files": {name: storage._describe(str(path / name))}}
    manifest = {"content": {**content, **files}}
    manifest["sha256"] = storage._digest(manifest["content"])
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_pickle_in_a_sound_manifest(folder, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    write(folder, 1)
    np.savez(folder / "000000001" / "shared.npz", x=np.array([Harm()]))
    forge(folder)
    iteration, (note,) = read_newest(folder)
    assert iteration is None and "no file of arrays" in note
    assert not (tmp_path / "harm").exists()


def test_a_bomb_in_a_sound_manifest(folder):
    write(folder, 1)
    np.savez_compressed(folder / "000000001" / "shared.npz", x=np.zeros(10**7))
    forge(folder)
    assert read_newest(folder)[0] is None


def test_a_file_elsewhere(folder, tmp_path):
    write(folder, 1)
    np.savez(tmp_path / "mine.npz", x=np.zeros(1))
    forge(folder, "../../../mine.npz")
    assert read_newest(folder)[0] is None


def test_a_full_disk_leaves_what_was_there(folder, monkeypatch):
    write(folder, 1)
    write(folder, 2)
    before = contents(folder)

    def fail(*_, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for owner, name in ((zipfile.ZipFile, "open"), (os, "fsync"), (os, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(OSError, match="No space left"):
                write(folder, 3)
        assert contents(folder) == before
    assert read_newest(folder) == (2, [])


def test_what_a_kill_leaves_is_cleaned_up(folder, monkeypatch):
    write(folder, 1)

    class Kill(BaseException):
        pass

    def kill(*_, **options):
        raise Kill

    for owner, name in ((zipfile.ZipFile, "open"), (os, "fsync"), (os, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, kill)
            with pytest.raises(Kill):
                write(folder, 2)
        assert read_newest(folder) == (1, [])
    assert (folder / "000000002.partial").exists()
    write(folder, 3)
    assert sorted(os.listdir(folder)) == ["000000001", "000000003"]
