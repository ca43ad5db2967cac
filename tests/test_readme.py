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
from chainer_crossbn.runs.options import OPTIONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = {path.stem: path.read_text("utf-8") for path in ROOT.glob("docs/*.md")}
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_table_of_options():
    page = DOCS["train_cifar"]
    rows = re.findall(r"^\| `--.*$", page, re.MULTILINE)
    assert rows == [_row(option) for option in OPTIONS.values()]


def _row(option):
    flags = f"`{option.flag}`" + (f", `{option.short}`" if option.short else "")
    if option.default_text:
        default = option.default_text
    elif option.is_switch:
        default = "off"
    elif option.usual is None:
        default = "none"
    else:
        default = f"`{option.usual}`"
    return f"| {flags} | {default} | {option.description} |"


def test_the_table_of_the_experiments_has_every_flag(capsys):
    with pytest.raises(SystemExit):
        experiments.main(["--help"])
    shown = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    told = re.findall(r"^\| `(--[a-z-]+)", DOCS["reproduction"], re.MULTILINE)
    assert sorted(told) == sorted(shown)


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
    page = DOCS["benchmarks"]
    rows = dict(
        re.findall(r"^\| (.+? to .+?) \| .*?([\d.]+ \| [\d.–]+) \|$", page, re.M)
    )
    assert len(pairs) >= 12
    for title, pair in pairs.items():
        low, high = pair["interval"]
        assert rows[title] == f"{pair['ratio']:.2f} | {low:.2f}–{high:.2f}"


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
