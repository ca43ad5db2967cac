"""CIFAR-10 and CIFAR-100 from sound, broken and hostile files."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc

import numpy
import pytest

from chainer_crossbn import datasets
from chainer_crossbn.datasets import cifar, unpickling

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
BATCHES = [f"data_batch_{i}" for i in range(1, 6)]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 writes its strings, as the official files have them."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def dump_python2(value):
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"numpy._core.multi", b"numpy.core.multi")


def batch(seed, n=4, n_class=10, labels=b"labels"):
    random = numpy.random.RandomState(seed)
    value = {
        b"batch_label": b"a batch",
        b"data": random.randint(0, 256, (n, 3072)).astype(numpy.uint8),
        labels: random.randint(0, n_class, n).tolist(),
        b"filenames": [b"%d.png" % i for i in range(n)],
    }
    if labels == b"fine_labels":
        value[b"coarse_labels"] = [0] * n
    return value


def contents(name="cifar10"):
    """Return the contents of the files of a small data set."""
    if name == "cifar10":
        return {
            file: batch(i, n=3 + i) for i, file in enumerate([*BATCHES, "test_batch"])
        }
    return {
        file: batch(i, n=7, n_class=100, labels=b"fine_labels")
        for i, file in enumerate(["train", "test"])
    }


def pickled(values, dump=dump_python2):
    return {file: dump(value) for file, value in values.items()}


def write_folder(path, files, name="cifar10"):
    folder = path / FOLDERS[name]
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def write_archive(path, files, name="cifar10", extra=()):
    """Write an archive with some files; extra has members as TarInfo and bytes."""
    path.mkdir(parents=True, exist_ok=True)
    archive_path = path / ARCHIVES[name]
    with tarfile.open(archive_path, "w:gz", compresslevel=1) as archive:
        members = [
            (tarfile.TarInfo(f"{FOLDERS[name]}/{file}"), content)
            for file, content in {"batches.meta": b"ignored", **files}.items()
        ]
        for member, content in [*members, *extra]:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return archive_path


def check(data, values, name="cifar10"):
    assert data.name == name
    train = [value for file, value in values.items() if not file.startswith("test")]
    test = [value for file, value in values.items() if file.startswith("test")]
    key = b"labels" if name == "cifar10" else b"fine_labels"
    for images, labels, parts in (
        (data.train_images, data.train_labels, train),
        (data.test_images, data.test_labels, test),
    ):
        expected = numpy.concatenate([part[b"data"] for part in parts])
        numpy.testing.assert_array_equal(images, expected.reshape(-1, 3, 32, 32))
        numpy.testing.assert_array_equal(labels, sum((part[key] for part in parts), []))
        assert images.dtype == numpy.uint8
        assert images.flags.c_contiguous and images.flags.writeable
        assert labels.dtype == numpy.int32


def refused(path, match, name="cifar10"):
    """Check that loading fails with one line that says why, and what to do."""
    with pytest.raises(datasets.DatasetError, match=match) as raised:
        datasets.load(name, path)
    assert str(raised.value).isprintable()
    assert "; " in str(raised.value)


# Sound files


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_archives_and_folders_have_equal_images(tmp_path, name):
    values = contents(name)
    folder = write_folder(tmp_path / "unpacked", pickled(values), name)
    archive = write_archive(tmp_path / "packed", pickled(values), name)
    loaded = [
        datasets.load(name, path)
        for path in (folder, folder.parent, archive, str(archive), archive.parent)
    ]
    for data in loaded:
        check(data, values, name)
        assert data.n_class == int(name[5:])
        assert data.checksum == loaded[0].checksum
        assert len(data.checksum) == 64
    assert loaded[0].notes == ()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_python_3(tmp_path, protocol):
    values = contents()
    files = pickled(values, lambda value: pickle.dumps(value, protocol))
    check(datasets.load("cifar10", write_folder(tmp_path, files)), values)


def test_text_keys(tmp_path):
    values = contents()
    files = pickled(
        {f: {k.decode(): v for k, v in b.items()} for f, b in values.items()}
    )
    check(datasets.load("cifar10", write_folder(tmp_path, files)), values)


def test_other_data_have_another_checksum(tmp_path):
    values = contents()
    first = datasets.load("cifar10", write_folder(tmp_path / "1", pickled(values)))
    label = values["test_batch"][b"labels"][0]
    values["test_batch"][b"labels"][0] = (label + 1) % 10
    second = datasets.load("cifar10", write_folder(tmp_path / "2", pickled(values)))
    assert first.checksum != second.checksum


def test_unofficial_archive_has_a_note(tmp_path, monkeypatch):
    archive = write_archive(tmp_path, pickled(contents()))
    (note,) = datasets.load("cifar10", archive).notes
    assert "MD5" in note and str(archive) in note
    make_official(monkeypatch, archive)
    assert datasets.load("cifar10", archive).notes == ()


def test_subsets(tmp_path):
    folder = write_folder(tmp_path, pickled(contents()))
    everything = datasets.load("cifar10", folder)
    part = datasets.load("cifar10", folder, train_size=6, test_size=2)
    chosen = datasets.take_balanced(everything.train_labels, 6, 10)
    numpy.testing.assert_array_equal(part.train_images, everything.train_images[chosen])
    assert part.test_labels.shape == (2,)
    with pytest.raises(datasets.DatasetError, match="^--train-size: 26 .* to 25"):
        datasets.load("cifar10", folder, train_size=26)
    with pytest.raises(datasets.DatasetError, match="^--test-size: 0 images"):
        datasets.load("cifar10", folder, test_size=0)


# The same data in other forms


def write_binary(path, values, name):
    for file, value in values.items():
        labels = numpy.array(value[b"labels" if name == "cifar10" else b"fine_labels"])
        coarse = [] if name == "cifar10" else [numpy.zeros_like(labels)[:, None]]
        rows = numpy.hstack([*coarse, labels[:, None], value[b"data"]])
        (path / f"{file}.bin").write_bytes(rows.astype("u1").tobytes())


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_binary_version(tmp_path, name):
    write_binary(tmp_path, contents(name), name)
    check(datasets.load(name, tmp_path), contents(name), name)
    file = next(iter(contents(name)))
    (tmp_path / f"{file}.bin").write_bytes(bytes(3000))
    refused(tmp_path, f"{file}.bin has 3000 bytes", name)


def test_npz(tmp_path):
    values = contents()
    data = datasets.load("cifar10", write_folder(tmp_path, pickled(values)))
    arrays = {
        "x_train": data.train_images.transpose(0, 2, 3, 1),
        "y_train": data.train_labels[:, None],
        "x_test": data.test_images.transpose(0, 2, 3, 1),
        "y_test": data.test_labels.astype("u1"),
    }
    path = tmp_path / "a.npz"
    numpy.savez(path, **arrays)
    other = datasets.load("cifar10", path)
    check(other, values)
    assert other.checksum == data.checksum
    numpy.savez(path, **{**arrays, "y_test": arrays["y_test"] + 10})
    refused(path, "y_test has labels out of 0 to 9")


@pytest.mark.parametrize("end", [".tar", ".tar.bz2", ".zip"])
def test_other_archives(tmp_path, end):
    folder = write_folder(tmp_path / "files", pickled(contents()))
    formats = {".tar": "tar", ".tar.bz2": "bztar", ".zip": "zip"}
    path = shutil.make_archive(
        str(tmp_path / "cifar-10-python"), formats[end], folder.parent, folder.name
    )
    assert path.endswith(end)
    for place in (path, tmp_path):
        check(datasets.load("cifar10", place), contents())
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    refused(path, "truncated|not a valid|damaged")


@pytest.mark.parametrize(
    "place", ["", "cifar-10-batches-py", "cifar-10-batches-py-target"]
)
def test_places_of_the_folder(tmp_path, place, monkeypatch):
    write_folder(tmp_path / place, pickled(contents()))
    check(datasets.load("cifar10", tmp_path), contents())
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    check(datasets.load("cifar10", f"~/{tmp_path.name}"), contents())


def test_archive_of_keras_beside_a_partial_folder(tmp_path):
    archive = write_archive(tmp_path, pickled(contents()))
    archive.rename(tmp_path / "cifar-10-batches-py.tar.gz")
    check(datasets.load("cifar10", tmp_path), contents())
    files = pickled(contents())
    del files["test_batch"]
    write_folder(tmp_path, files)
    check(datasets.load("cifar10", tmp_path), contents())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_labels(tmp_path, protocol):
    for i, convert in enumerate((numpy.array, lambda v: list(numpy.array(v)))):
        files = {
            file: pickle.dumps({**v, b"labels": convert(v[b"labels"])}, protocol)
            for file, v in contents().items()
        }
        folder = write_folder(tmp_path / str(i), files)
        check(datasets.load("cifar10", folder), contents())


# Missing files, and files of another kind


@pytest.mark.parametrize("path", ["", "no/such/place", "a\nb", "a\0b", "\udcff"])
def test_missing_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(path, "no file or directory")


def test_special_file():
    refused("/dev/zero", "no file or directory")


def test_directory_without_batches(tmp_path):
    (tmp_path / "train").mkdir()
    refused(tmp_path, "no images of cifar10.*cifar-10-python.tar.gz")
    refused(tmp_path, "no images of cifar100.*cifar-100-python.tar.gz", "cifar100")
    (tmp_path / "cifar-10-batches-py").mkdir()
    refused(tmp_path, "data_batch_1: No such file")


@pytest.mark.parametrize("missing", ["data_batch_4", "test_batch"])
def test_missing_batch(tmp_path, missing):
    files = pickled(contents())
    del files[missing]
    refused(write_folder(tmp_path, files), f"{missing}: No such file")
    refused(write_archive(tmp_path, files), f"cifar-10-batches-py/{missing}")


@pytest.mark.parametrize(
    ("given", "asked"), [("cifar10", "cifar100"), ("cifar100", "cifar10")]
)
def test_other_data_set(tmp_path, given, asked):
    files = pickled(contents(given))
    match = f"is {given}, not {asked}; use --dataset {given}"
    folder = write_folder(tmp_path / "a", files, given)
    archive = write_archive(tmp_path / "b", files, given)
    for path in (folder, folder.parent, archive, archive.parent):
        refused(path, match, asked)


def test_unreadable_file(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, pickled(contents()))
    archive = write_archive(tmp_path, pickled(contents()))

    def no_permission(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", no_permission)
    refused(folder, "data_batch_1: Permission denied")
    refused(archive, "Permission denied")


# Broken archives


def test_truncated_archive(tmp_path):
    archive = write_archive(tmp_path, pickled(contents()))
    content = archive.read_bytes()
    for size in (0, 1, 12, 100, len(content) // 2, len(content) - 1):
        archive.write_bytes(content[:size])
        refused(archive, "truncated|not a valid tar|damaged")


def test_damaged_archive(tmp_path):
    archive = write_archive(tmp_path, pickled(contents()))
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1  # in the checksum at the end
    archive.write_bytes(content)
    refused(archive, "damaged")


@pytest.mark.parametrize(
    "content",
    [b"no archive at all", gzip.compress(b"no archive" * 999), b"PK\3\4"],
    ids=["text", "gzip", "zip"],
)
def test_not_a_tar(tmp_path, content):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(content)
    refused(path, "not a gzip file|not a valid tar")


def member(name="cifar-10-batches-py/more", **fields):
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("info", "match"),
    [
        (member("../outside"), "points outside"),
        (member("cifar-10-batches-py/../../outside"), "points outside"),
        (member("/etc/passwd"), "points outside"),
        (member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "not a plain file"),
        (member(type=tarfile.LNKTYPE, linkname="/etc/passwd"), "not a plain file"),
        (member(type=tarfile.CHRTYPE), "not a plain file"),
        (member(type=tarfile.BLKTYPE), "not a plain file"),
        (member(type=tarfile.FIFOTYPE), "not a plain file"),
        (member(type=tarfile.GNUTYPE_SPARSE), "not a plain file|not a valid tar"),
        (member("cifar-10-batches-py/data_batch_1"), "not one file"),
    ],
)
def test_hostile_member(tmp_path, info, match):
    archive = write_archive(tmp_path, pickled(contents()), extra=[(info, b"")])
    refused(archive, match)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_batch_is_not_a_file(tmp_path, kind):
    files = pickled(contents())
    del files["test_batch"]
    info = member("cifar-10-batches-py/test_batch", type=kind, linkname="data_batch_1")
    refused(
        write_archive(tmp_path, files, extra=[(info, b"")]),
        "not a plain file|not one file",
    )


def test_too_many_members(tmp_path):
    extra = [(member(f"cifar-10-batches-py/{i}"), b"") for i in range(1001)]
    archive = write_archive(tmp_path, pickled(contents()), extra=extra)
    refused(archive, "too many members")


@pytest.mark.parametrize("name", ["test_batch", "other"])
def test_decompression_bomb(tmp_path, monkeypatch, name):
    monkeypatch.setattr(cifar, "_FILE_LIMIT", 1 << 20)
    monkeypatch.setattr(cifar, "_ARCHIVE_LIMIT", 1 << 22)
    size = (1 << 20) + 1 if name == "test_batch" else 1 << 23
    files = {**pickled(contents()), name: bytes(size)}
    archive = write_archive(tmp_path, files)
    assert archive.stat().st_size < 1 << 20
    refused(archive, "too large")


def test_large_files(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, pickled(contents()))
    archive = write_archive(tmp_path, pickled(contents()))
    monkeypatch.setattr(cifar, "_FILE_LIMIT", 1000)
    monkeypatch.setattr(cifar, "_ARCHIVE_LIMIT", 1000)
    refused(folder, "too large")
    refused(archive, "too large")


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_huge_header(tmp_path, monkeypatch, kind):
    """A tar header that claims 8 GiB is refused at the limit."""
    monkeypatch.setattr(cifar, "_ARCHIVE_LIMIT", 1 << 22)
    info = member(type=kind)
    info.size = (1 << 33) - 512
    block = info.tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(block + bytes(1 << 23), 1))
    refused(path, "too large|not a valid tar")


def test_nested_headers(tmp_path):
    block = member(type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(block * 5000))
    refused(path, "not a valid tar")


# Broken batches


def with_batch(tmp_path, content):
    """Return a folder with another content in one batch."""
    if not isinstance(content, bytes):
        content = dump_python2(content)
    return write_folder(tmp_path, {**pickled(contents()), "data_batch_2": content})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({b"data": None}, "no array"),
        ({b"data": b"text"}, "no array"),
        ({b"data": numpy.zeros((4, 3071), "u1")}, "shape"),
        ({b"data": numpy.zeros((4, 3, 32, 32), "u1")}, "shape"),
        ({b"data": numpy.zeros((0, 3072), "u1")}, "shape"),
        ({b"data": numpy.zeros((3072, 4), "u1").T}, "shape"),
        ({b"data": numpy.zeros((4, 3072), "i1")}, "not uint8"),
        ({b"data": numpy.zeros((4, 3072), "f4")}, "not uint8"),
        ({b"labels": None}, "labels"),
        ({b"labels": [0, 1, 2]}, "4 labels"),
        ({b"labels": [0, 1, 2, 3, 4]}, "4 labels"),
        ({b"labels": [0, 1, 2, 10]}, "0 to 9"),
        ({b"labels": [0, 1, 2, -1]}, "0 to 9"),
        ({b"labels": [0, 1, 2, 3.0]}, "0 to 9"),
        ({b"labels": [0, 1, 2, True]}, "0 to 9"),
        ({b"labels": [0, 1, 2, 10**600]}, "0 to 9"),
        ({b"labels": [0, 1, 2, [3]]}, "0 to 9"),
        ({b"labels": [0, 1, 2, "3"]}, "0 to 9"),
    ],
)
def test_wrong_batch(tmp_path, change, match):
    refused(with_batch(tmp_path, {**batch(0), **change}), match)


@pytest.mark.parametrize("key", [b"data", b"labels"])
def test_incomplete_batch(tmp_path, key):
    value = batch(0)
    del value[key]
    refused(with_batch(tmp_path, value), f"data_batch_2.*'{key.decode()}'")


@pytest.mark.parametrize("value", [[], None, 5, b"text", {}])
def test_no_batch(tmp_path, value):
    refused(with_batch(tmp_path, value), "data_batch_2 ")


class Call:
    """Unpickles as the result of a call."""

    def __init__(self, function, *arguments):
        self._reduced = function, arguments

    def __reduce__(self):
        return self._reduced


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_can_not_call(tmp_path, protocol):
    proof = tmp_path / "proof"
    for i, value in enumerate(
        (
            Call(os.system, f"touch {proof}"),
            {"data": Call(eval, f"open({str(proof)!r}, 'w')")},
            {"data": Call(getattr, "", "join")},
            {"data": Call(numpy.load, str(proof))},
        )
    ):
        content = pickle.dumps(value, protocol)
        refused(with_batch(tmp_path / str(i), content), "data_batch_2 ")
        refused(write_archive(tmp_path, {"data_batch_1": content}), "data_batch_1 ")
    assert not proof.exists()


def test_the_refused_name_is_in_the_message(tmp_path):
    content = pickle.dumps(Call(os.system, "true"), 2)
    refused(with_batch(tmp_path, content), r"data_batch_2 .*\.system")


LONG_TEXT = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"a",
        b"}",
        b"\x80\x02}",
        b"\x80\x02})R.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\nndarray\n)b.",
        b"\x80\x02cnumpy\ndtype\n)R.",
        b"\x80\x02cos\nsystem\nU\x02ls\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x04K\x01K\x02\x93.",
        b"\x80\x02cno\x1b\nname\n.",
        b"\x80\x02c" + b"x" * 9999 + b"\nname\n.",
        b"\x80\x02(ios\nsystem\n.",
        b"\x80\x02U\x01aQ.",  # a persistent object
        b"\x80\x02\x82\x01.",  # an extension
        b"\x80\x02]0.",
        b"\x80\x02]u.",
        b"\x80\x02}(K\x01K\x02u.",
        b"\x80\x02})K\x01s.",
        b"\x80\x02}" + LONG_TEXT + b"K\x01s.",
        b"\x80\x02h\x05.",
        b"\x80\x02}r\xff\xff\xff\xffh\x01.",  # a large memo, almost empty
        b"\x80\x02T\xff\xff\xff\x7fabc.",
        b"\x80\x02T\xff\xff\xff\xffabc.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
        b"\x80\x02L" + b"9" * 100000 + b"L\n.",
        b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b".",  # lists in lists
        b"\x80\x02)" + b"\x85" * 100000 + b".",  # tuples in tuples
        b"\x80\x02})" + b"\x85" * 100000 + b"K\x01s.",  # such a tuple as a key
        b"\x80\x02}(()" + b"\x85" * 100000 + b"K\x01u.",
        b"\x80\x02(()" + b"\x85" * 100000 + b"K\x01d.",
        b"\x80\x04\x8f(()" + b"\x85" * 100000 + b"\x90.",  # and in a set
        b"\x80\x02}K\x01" + b"q\0h\0\x86" * 100 + b"K\x01s.",  # 2**100 steps to hash
        b"\x80\x02]q\0h\0a.",  # a list in itself
        b"\x80\x02" + b"(" * 100000 + b".",
    ],
)
def test_hostile_pickle(tmp_path, content):
    refused(with_batch(tmp_path, content), "data_batch_2 ")


@pytest.mark.parametrize(
    "start", [b"\x80\x02", b"\x80\x04\x95" + struct.pack("<Q", 1001)]
)
def test_long_pickle(tmp_path, monkeypatch, start):
    monkeypatch.setattr(unpickling, "_READ_LIMIT", 1000)
    refused(with_batch(tmp_path, start + b"N" * 1000 + b"."), "too many")


def test_hostile_arrays(tmp_path):
    """Constructors and states that NumPy itself would allocate or not survive."""
    shape = b"J\xff\xff\xff\x7f\x85"
    objects = b"cnumpy\ndtype\nU\x02O8K\0K\x01\x87R"
    state = (
        b"(K\x03U\x01|NU\x01a\x85}U\x01a" + objects + b"M\xe8\x03\x86sK\x08K\x01K\0tb"
    )
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    for i, array in enumerate(
        (
            b"cnumpy\nndarray\n" + shape + b"\x85R",
            b"cnumpy\nndarray\n" + shape + objects + b"\x86R",
            reconstruct + shape + b"U\x01b\x87R",
            reconstruct
            + b"K\0\x85U\x01b\x87R(K\x01K\x01\x85"
            + objects
            + state
            + b"\x89]tb",
        )
    ):
        content = b"\x80\x02}(U\x04data" + array + b"U\x06labels]u."
        refused(with_batch(tmp_path / str(i), content), "data_batch_2 .*(array|uint8)")


def test_text_encoded_many_times_takes_little_memory(tmp_path):
    text = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\x01"
    call = b"c_codecs\nencode\nh\x01U\x06latin1\x86R"
    folder = with_batch(tmp_path, b"\x80\x02](" + text + call * 20000 + b"e.")
    tracemalloc.start()
    refused(folder, "data_batch_2 ")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * cifar._FILE_LIMIT  # the copies would be 20 GiB


def test_declared_size_is_checked(tmp_path):
    content = dump_python2(batch(0))
    shape = pickle.BININT1 + b"\x04" + pickle.BININT2 + struct.pack("<H", 3072)
    assert content.count(shape) == 1
    for number in (
        b"J\xff\xff\xff\x7f",
        b"J\xff\xff\xff\xff",
        b"\x8a\x09" + b"\x7f" * 9,
    ):
        huge = content.replace(shape, number + shape[2:])
        refused(with_batch(tmp_path / number.hex(), huge), "shape")


def test_damaged_batches_load_or_are_refused(tmp_path):
    random = numpy.random.RandomState(0)
    content = dump_python2(batch(0, n=1))
    pixels = content.index(batch(0, n=1)[b"data"].tobytes())
    places = [i for i in range(len(content)) if not pixels <= i < pixels + 3072]
    folder = with_batch(tmp_path, content)
    n_refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.choice(places, random.randint(1, 4)):
            damaged[place] = random.randint(256)
        (folder / "data_batch_2").write_bytes(damaged)
        try:
            data = datasets.load("cifar10", folder)
        except datasets.DatasetError:
            n_refused += 1
        else:
            assert len(data.train_images) == len(data.train_labels)
            assert 0 <= data.train_labels.min() <= data.train_labels.max() < 10
    assert n_refused > 30


def test_damaged_tar_is_refused(tmp_path):
    random = numpy.random.RandomState(0)
    archive = write_archive(tmp_path, {"data_batch_1": dump_python2(batch(0, n=1))})
    content = gzip.decompress(archive.read_bytes())
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 5)):
            damaged[random.randint(2048)] = random.randint(256)
        archive.write_bytes(gzip.compress(bytes(damaged), 1))
        with pytest.raises(datasets.DatasetError):
            datasets.load("cifar10", archive)


# The cache and the download


def make_official(monkeypatch, archive, url=None):
    """Take an archive for the official one."""
    source = cifar._SOURCES["cifar10"]
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    source = source._replace(md5=md5, url=url or source.url)
    monkeypatch.setitem(cifar._SOURCES, "cifar10", source)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The path of the cached archive of CIFAR-10, in an empty dataset directory."""
    root = tmp_path / "cache"
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(root))
    url_hash = hashlib.md5(cifar._SOURCES["cifar10"].url.encode()).hexdigest()
    return root / "_dl_cache" / url_hash


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of an archive, which is taken for the official one."""
    archive = write_archive(tmp_path / "served", pickled(contents()))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(archive.parent))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        make_official(monkeypatch, archive, url)
        yield archive
        server.shutdown()
        thread.join()


def test_cached_archive(cache):
    cache.parent.mkdir(parents=True)
    write_archive(cache.parent, pickled(contents())).rename(cache)
    check(datasets.load("cifar10"), contents())
    cache.write_bytes(cache.read_bytes()[:500])
    with pytest.raises(datasets.DatasetError, match="truncated; delete it"):
        datasets.load("cifar10")


def test_chainer_has_the_same_cache(cache):
    import chainer

    before = chainer.dataset.get_dataset_root()
    chainer.dataset.set_dataset_root(os.environ["CHAINER_DATASET_ROOT"])
    try:
        cache.parent.mkdir(parents=True)
        cache.write_bytes(b"")
        url = cifar._SOURCES["cifar10"].url
        assert chainer.dataset.cached_download(url) == str(cache)
    finally:
        chainer.dataset.set_dataset_root(before)


def test_download(cache, server):
    lines = []
    check(datasets.load("cifar10", progress=lines.append), contents())
    assert lines[0].startswith("downloading cifar-10-python.tar.gz")
    (cached,) = cache.parent.iterdir()
    assert cached.read_bytes() == server.read_bytes()
    server.unlink()
    assert datasets.load("cifar10").notes == ()


def test_simultaneous_downloads(cache, server):
    """As by several runs with a common home directory."""
    source = cifar._SOURCES["cifar10"]
    code = (
        "from chainer_crossbn import datasets\n"
        "from chainer_crossbn.datasets import cifar\n"
        "source = cifar._SOURCES['cifar10']\n"
        f"source = source._replace(md5={source.md5!r}, url={source.url!r})\n"
        "cifar._SOURCES['cifar10'] = source\n"
        "print(datasets.load('cifar10').checksum)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    checksums = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 6
    assert checksums == {f"{datasets.load('cifar10').checksum}\n"}
    (cached,) = cache.parent.iterdir()
    assert cached.read_bytes() == server.read_bytes()


ADVICE = "--data PATH.*--dataset synthetic"


def test_damaged_download(cache, server):
    server.write_bytes(server.read_bytes()[:-1])
    with pytest.raises(
        datasets.DatasetError, match=f"damaged or has changed.*{ADVICE}"
    ):
        datasets.load("cifar10")
    assert not list(cache.parent.iterdir())


def test_download_of_too_much(cache, server, monkeypatch):
    monkeypatch.setattr(cifar, "_ARCHIVE_LIMIT", 1000)
    with pytest.raises(datasets.DatasetError, match="too large.*--data PATH"):
        datasets.load("cifar10")
    assert not list(cache.parent.iterdir())


def test_no_download(cache, server):
    server.unlink()
    with pytest.raises(datasets.DatasetError, match=f"failed .*{ADVICE}") as raised:
        datasets.load("cifar10")
    assert str(raised.value).isprintable()
    assert not list(cache.parent.iterdir())


def test_no_answer(cache, monkeypatch):
    source = cifar._SOURCES["cifar10"]._replace(url="http://127.0.0.1:1/x")
    monkeypatch.setitem(cifar._SOURCES, "cifar10", source)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(datasets.DatasetError, match=f"failed .*{ADVICE}"):
        datasets.load("cifar10")


def test_cache_is_not_writable(tmp_path, server, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(tmp_path / "file"))
    with pytest.raises(datasets.DatasetError, match=f"failed .*{ADVICE}"):
        datasets.load("cifar10")
