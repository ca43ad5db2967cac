"""What the README says is so."""

import re
from pathlib import Path
from types import SimpleNamespace

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_crossbn import CrossBatchNormalization, arguments

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# Flag -> default, as the table of flags has them.
FLAGS = {
    flag: default.strip("`")
    for names, default in re.findall(r"^\| (`-.*?) \| (.*?) \|", README, re.MULTILINE)
    for flag in re.findall(r"`(--[a-z-]+)", names)
}


def test_the_table_has_every_flag(capsys):
    with pytest.raises(SystemExit):
        arguments.parse(["--help"])
    shown = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(FLAGS) == sorted(shown)


def test_the_table_has_the_defaults():
    checked = 0
    for name, value in vars(arguments.parse([])).items():
        default = FLAGS["--" + name.replace("_", "-")]
        if isinstance(value, str):
            assert default == value, name
        elif value is not None and not isinstance(value, bool):
            assert float(default) == value, name
        else:
            continue
        checked += 1
    assert checked >= 14


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


class Conv2DBNActiv(chainer.Chain):
    """As ChainerCV's."""

    def __init__(self, in_channels, out_channels, ksize):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(in_channels, out_channels, ksize)
            self.bn = L.BatchNormalization(out_channels)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def test_example_of_chainercv(names):
    model = chainer.Sequential(Conv2DBNActiv(3, 4, 1), Conv2DBNActiv(4, 5, 1))
    model[0].bn = L.BatchNormalization(4, decay=0.5, eps=0.1, initial_gamma=7)
    x = np.random.RandomState(0).randn(2, 3, 4, 4).astype(np.float32)
    model(x)
    with chainer.using_config("train", False):
        before = model(x).array
    links = SimpleNamespace(Conv2DBNActiv=Conv2DBNActiv)
    names.update(model=model, chainercv=SimpleNamespace(links=links))
    exec(EXAMPLES[1], names)
    assert all(isinstance(block.bn, CrossBatchNormalization) for block in model)
    assert (model[0].bn.decay, model[0].bn.eps) == (0.5, 0.1)
    with chainer.using_config("train", False):
        assert (model(x).array == before).all()
    assert len(list(model.params())) == 8
