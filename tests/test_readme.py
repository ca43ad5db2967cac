"""What the README says is so."""

import json
import re
from pathlib import Path

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.links as L
import numpy as np
import pytest

from chainer_crossbn import CrossBatchNormalization
from chainer_crossbn.commands import experiments
from chainer_crossbn.commands.train import options

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = {path.stem: path.read_text("utf-8") for path in ROOT.glob("docs/*.md")}
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# Heading -> text below it.
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", README, re.MULTILINE))
# Flag -> default, as the table of flags has them.
FLAGS = {
    flag: default.strip("`")
    for names, default in re.findall(
        r"^\| (`-.*?) \| (.*?) \|", SECTIONS["Train and draw"], re.MULTILINE
    )
    for flag in re.findall(r"`(--[a-z-]+)", names)
}


def test_the_table_has_every_flag(capsys):
    with pytest.raises(SystemExit):
        options.parse(["--help"])
    shown = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(FLAGS) == sorted(shown)


def test_the_table_of_the_experiments_has_every_flag(capsys):
    with pytest.raises(SystemExit):
        experiments.main(["--help"])
    shown = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    told = re.findall(r"^\| `(--[a-z-]+)", DOCS["reproduction"], re.MULTILINE)
    assert sorted(told) == sorted(shown)


def test_the_table_has_the_defaults():
    checked = 0
    for name, value in vars(options.parse([])).items():
        default = FLAGS["--" + name.replace("_", "-")]
        if isinstance(value, str):
            assert default == value, name
        elif value is not None and not isinstance(value, bool):
            assert float(default) == value, name
        else:
            continue
        checked += 1
    assert checked >= 13


def test_the_tests_that_it_names_are_there():
    folder = Path(__file__).resolve().parent
    tests = "".join(path.read_text("utf-8") for path in folder.rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", DOCS["exactness"]))
    assert len(named) >= 15
    for name in named:
        assert f"def {name}(" in tests, name


@pytest.fixture
def names():
    """Return what the first example defines."""
    names = {}
    exec(EXAMPLES[0], names)
    return names


def test_example_of_a_model(names):
    x = np.random.RandomState(0).randn(4, 3, 8, 8).astype(np.float32)
    y = names["model"](x)
    assert y.shape == (4, 64, 8, 8)
    assert isinstance(names["model"].bn, CrossBatchNormalization)


def test_example_of_a_model_that_is_there_already(names):
    model = chainer.Sequential(L.Convolution2D(3, 4, 1), L.BatchNormalization(4))
    names["model"] = model
    exec(EXAMPLES[1], names)
    assert isinstance(names["model"][1], CrossBatchNormalization)
    assert isinstance(model[1], L.BatchNormalization)
    assert (names["model"][0].W.array == model[0].W.array).all()


def test_speed_table_is_what_was_measured():
    results = ROOT / "benchmarks" / "results" / "compare.json"
    pairs = json.loads(results.read_text())["pairs"]
    rows = dict(
        re.findall(r"^\| (.+? to .+?) \| .*?([\d.]+ \| [\d.–]+) \|$", README, re.M)
    )
    assert len(pairs) >= 12
    for title, found in pairs.items():
        low, high = found["interval"]
        assert rows[title] == f"{found['ratio']:.2f} | {low:.2f}–{high:.2f}"


@pytest.mark.parametrize("page", ["README", *DOCS])
def test_links_lead_somewhere(page):
    text, folder = (README, ROOT) if page == "README" else (DOCS[page], ROOT / "docs")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        path = folder / path if path else folder / f"{page}.md"
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            anchors = [
                re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings
            ]
            assert anchor in anchors, target
