"""Whatever is given, the answer is a result or one line; a traceback never.

``FUZZ_CASES`` sets how many cases each test makes.
"""

import contextlib
import gzip
import io
import json
import os
import tarfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_datasets_cifar import contents, dump_python2
from test_plotting import epochs, write_run

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import numpy as np

from chainer_crossbn import datasets
from chainer_crossbn.commands import plot
from chainer_crossbn.commands.train import options, resume
from chainer_crossbn.datasets import cifar
from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs import reading
from chainer_crossbn.runs.options import OPTIONS
from chainer_crossbn.training.snapshots import storage

fuzzed = settings(
    max_examples=int(os.environ.get("FUZZ_CASES", "50")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)


def assert_one_line(error):
    assert str(error) and "\n" not in str(error), str(error)


# The command line

FLAGS = {
    "--bn": ["none", "normal", "multigpu", "paper", "group", "weight", "layer"],
    "--bn-layers": ["front:2", "back:13", "front:0", "back:99", "side:1", "front:"],
    "--bn-rest": ["none", "normal"],
    "--model": ["vgg16", "alexnet", "googlenet", "resnet20", "resnet50"],
    "--init": ["he", "lecun"],
    "--dataset": ["cifar10", "cifar100", "synthetic", "folder", "imagenet"],
    "--communicator": ["host", "naive", "flat"],
    "--paper-backward": ["exact", "local"],
    "--weight-norm-init": ["norm", "data"],
    **dict.fromkeys(
        (
            *("--bn-group-size", "--paper-allreduces", "--groups", "--width"),
            *("--fc-units", "--dropout", "--batchsize", "-b", "--epoch", "-e", "--lr"),
            *("--momentum", "--weight-decay", "--lr-step", "--seed", "--train-size"),
            *("--test-size", "--eval-train", "--threads", "--snapshot-interval"),
            *("--image-size", "--decode-threads", "--virtual-ranks", "--lr-factor"),
        ),
        ["1", "2", "0.5", "64"],
    ),
    **dict.fromkeys(
        (
            *("--gpu", "--cpu", "--profile", "--no-model", "--allow-nan"),
            *("--recompute", "--zero-gamma", "--skip-broken", "--augment"),
        ),
        [],
    ),
    "--lr-schedule": ["step", "milestones", "cosine", "poly"],
    "--lr-milestones": ["1", "1,2", "2,1", "1,", "0"],
    "--dtype": ["float16", "mixed16", "float32", "float64", "int"],
    **dict.fromkeys(
        ("--data", "--name", "--resume", "--evaluate", "--nonsense"), ["auto", "x"]
    ),
}
# What an operating system passes on: no NUL, and bytes that are no text as surrogates.
words = st.text(
    st.characters(exclude_characters="\0", exclude_categories=()), max_size=20
)
numbers = st.one_of(
    *(st.integers().map(str), st.floats().map(str)),
    st.sampled_from(["-0", "1e999", "-1", "nan", "0x1", "1_0", "٣", "9" * 5000, ""]),
)


@st.composite
def command_lines(draw):
    line = []
    for _ in range(draw(st.integers(0, 5))):
        flag = draw(st.sampled_from(sorted(FLAGS)))
        line.append(flag)
        if FLAGS[flag]:
            sound = st.sampled_from(FLAGS[flag])
            line.append(draw(st.one_of(sound, sound, numbers, words)))
    return line + draw(st.lists(words, max_size=1))


@fuzzed
@given(command_lines(), st.integers(1, 9))
def test_command_lines(tmp_path_factory, line, n_ranks):
    out = tmp_path_factory.getbasetemp() / "nothing"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            plan = resume.plan([*line, "--out", str(out)], n_ranks)
    except UsageError as error:
        assert_one_line(error)
    except SystemExit as ended:  # --help
        assert ended.code == 0 and {"-h", "--help"} & {*line} or "-h" in "".join(line)
    else:
        assert plan.path.startswith(str(out)) or plan.record is not None
    assert not out.exists()


# Archives

FILES = {file: dump_python2(value) for file, value in contents().items()}
FOLDER = "cifar-10-batches-py"


def mutated(draw, content, most=6):
    """Change some bytes, and perhaps the length."""
    content = bytearray(content)
    for _ in range(draw(st.integers(0, most))):
        # Headers and instructions are at the ends.
        end = min(len(content), draw(st.sampled_from([600, 4000, 10**9])))
        if end:
            place = draw(st.integers(0, end - 1))
            content[draw(st.sampled_from([place, -place]))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


@st.composite
def archives(draw):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for file, content in FILES.items():
            name = f"{FOLDER}/{file}"
            if draw(st.integers(0, 9)) == 0:
                name = draw(st.sampled_from(["../x", "/etc/x", name + "/..", "a"]))
            member = tarfile.TarInfo(name)
            if draw(st.integers(0, 9)) == 0:
                content = mutated(draw, content)
            if draw(st.integers(0, 19)) == 0:
                member.type = draw(st.sampled_from(list(b"0123456gxLKS"))).to_bytes(
                    1, "big"
                )
                member.linkname = draw(st.sampled_from(["../x", "/dev/zero", name]))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    whole = stream.getvalue()
    if draw(st.booleans()):
        whole = mutated(draw, whole)
    packed = gzip.compress(whole, 1)
    return mutated(draw, packed) if draw(st.booleans()) else packed


@fuzzed
@given(archives())
def test_archives(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("archives") / "fuzzed.tar.gz"
    path.write_bytes(content)
    before = set(path.parent.rglob("*"))
    try:
        data = datasets.load("cifar10", path)
    except datasets.DatasetError as error:
        assert_one_line(error)
    else:
        assert data.train_images.shape[1:] == (3, 32, 32)
        assert data.train_labels.min() >= 0 and data.train_labels.max() < 10
    assert set(path.parent.rglob("*")) == before


@fuzzed
@given(st.data())
def test_batches(data):
    content = mutated(data.draw, FILES["data_batch_1"], most=20)
    source = cifar._SOURCES["cifar10"]
    try:
        images, labels = cifar._parse_batch(source, "it", content)
    except cifar._Unusable as error:
        assert_one_line(error)
    else:
        assert images.shape == (len(labels), 3072)


# Logs and records

scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), words),
    st.sampled_from([10**400, -1, 0, 1e308, "1", "../..", [], {}]),
)
anything = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3)
)


def changed(draw, value, depth=0):
    """Change something somewhere in what JSON holds."""
    keys = list(value) if isinstance(value, dict) else None
    if isinstance(value, list):
        keys = list(range(len(value)))
    if not keys or (depth and draw(st.integers(0, 3)) == 0):
        return draw(anything)
    value = value.copy()
    key = draw(st.sampled_from(keys))
    if isinstance(value, dict) and draw(st.integers(0, 4)) == 0:
        del value[key]
    else:
        value[key] = changed(draw, value[key], depth + 1)
    return value


@st.composite
def texts(draw, value):
    for _ in range(draw(st.integers(0, 3))):
        value = changed(draw, value)
    text = json.dumps(value).encode("utf-8", "surrogatepass")
    return mutated(draw, text) if draw(st.integers(0, 3)) == 0 else text


@fuzzed
@given(st.data())
def test_logs(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("logs")
    run = write_run(folder, "normal")
    (run / "log").write_bytes(data.draw(texts(epochs())))
    record = json.loads((run / "args.json").read_text())
    record["arguments"]["out"] = "result"  # the same in all cases
    (run / "args.json").write_bytes(data.draw(texts(record)))
    runs, skipped = reading.find_runs([folder])
    assert len(runs) + len(skipped) == 1
    for _, reason in skipped:
        assert_one_line(reason)
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(io.StringIO()):
        status = plot.main([str(folder), "--out", str(folder / "figures")])
    assert status in (0, 2)
    assert len(shown.getvalue().splitlines()) >= (status == 2)


RECORD = {
    "program": "chainer_crossbn",
    "arguments": {**vars(options.parse([])), "name": "run"},
    "n_ranks": 2,
    "ranks": [{"rank": 0, "pid": 1, "host": "a"}],
    "dataset": {"name": "cifar10", "checksum": "c0ffee"},
    "versions": {"numpy": "2"},
}
RECORD["arguments"].update(lr=0.1, bn="multigpu", eval_train=10)


@fuzzed
@given(st.data())
def test_records_of_runs_to_go_on_with(tmp_path_factory, data):
    run = tmp_path_factory.mktemp("records")
    (run / "args.json").write_bytes(data.draw(texts(RECORD)))
    try:
        plan = resume.plan(["--resume", str(run)], 2)
    except UsageError as error:
        assert_one_line(error)
    else:
        assert resume.interruption(plan.record)
    assert [path.name for path in run.iterdir()] == ["args.json"]


@fuzzed
@given(st.data())
def test_snapshots(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run") / "snapshots"
    arrays = {"w": np.arange(6.0).reshape(2, 3), "n": np.array(3)}
    for iteration in (1, 2):
        storage.write(str(folder), iteration, {"shared": arrays}, {"accuracy": None})
    name = data.draw(st.sampled_from(["shared.npz", "manifest.json"]))
    path = folder / "000000002" / name
    whole = path.read_bytes()
    path.write_bytes(mutated(data.draw, whole))
    about, parts = storage.read_newest(str(folder), assert_one_line)
    assert about["iteration"] in (1, 2)
    if name == "shared.npz" and path.read_bytes() != whole:
        assert about["iteration"] == 1
    for key, array in arrays.items():
        assert (parts["shared"][key] == array).all()


def test_the_flags_are_those_of_the_program():
    flags = {option.flag for option in OPTIONS.values()}
    assert flags - {"--out"} == set(FLAGS) - {"-b", "-e", "--nonsense"}
