"""Blocks that are recomputed beside blocks that are not."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_crossbn import CrossBatchNormalization, models
from chainer_crossbn.collectives import host
from chainer_crossbn.functions.recompute import recompute
from chainer_crossbn.models import normalizations

WIDTHS = {
    **{"alexnet": 6, "googlenet": 8, "vgg16": 2, "resnet50": 4, "resnet20": 4},
}


@pytest.fixture
def counted(comm, monkeypatch):
    """Return a list that grows with each all-reduce, by its layer."""
    layers = []
    reduce = host.HostChannel._reduce

    def counting(channel, vector, layer, merging):
        layers.append(layer)
        return reduce(channel, vector, layer, merging)

    monkeypatch.setattr(host.HostChannel, "_reduce", counting)
    return layers


def images(comm, size, dtype="float32"):
    state = np.random.RandomState(comm.rank)
    return state.rand(3 + comm.rank, 3, size, size).astype(dtype)


def trained(comm, name, bn, recomputed, dtype="float32"):
    """Return all that a model holds, gradients included, after two passes."""
    size = max(32, models.MODELS[name].least_image_size)
    np.random.seed(0)
    with chainer.using_config("dtype", np.dtype(dtype)):
        normalization = normalizations.create(bn, comm)
        model = models.create(
            name,
            5,
            normalization,
            **{"width": WIDTHS[name], "fc_units": 8, "dropout": 0, "image_size": size},
            recomputed=recomputed,
        )
    x = images(comm, size, dtype)
    normalization.prepare(model, x)
    losses = []
    for _ in range(2):
        loss = F.softmax_cross_entropy(model(x), np.arange(len(x), dtype="int32") % 5)
        model.cleargrads()
        loss.backward()
        losses.append(loss.array.tobytes())
        for parameter in model.params():
            parameter.array -= np.float32(0.01) * parameter.grad
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(model)
    gradients = {f"{k} gradient": p.grad for k, p in model.namedparams()}
    return losses, {**serializer.target, **gradients}


def assert_same(ours, theirs):
    assert ours[0] == theirs[0]
    assert list(ours[1]) == list(theirs[1])
    for key, value in ours[1].items():
        assert np.array_equal(value, theirs[1][key]), key


@pytest.mark.parametrize("bn", normalizations.NAMES)
def test_every_normalization_is_as_without(comm, bn):
    results = [trained(comm, "resnet20", bn, recomputed) for recomputed in (1, 0)]
    assert_same(*results)


@pytest.mark.parametrize("bn", ["none", "multigpu"])
@pytest.mark.parametrize("name", WIDTHS)
def test_every_network_is_as_without(comm, name, bn):
    assert_same(*(trained(comm, name, bn, recomputed) for recomputed in (True, False)))


@pytest.mark.parametrize("bn", ["multigpu", "paper"])
def test_nothing_is_sent_twice(comm, counted, bn):
    seen = []
    for recomputed in (True, False):
        # Another communicator, as the layers of a second model have other names.
        trained(comm.split(0, comm.rank), "resnet20", bn, recomputed)
        seen.append(sorted(counted))
        counted.clear()
    assert seen[0] == seen[1]
    # forward and backward, two passes of 19 layers; the paper has two of each
    expected = 2 * 2 * 19 * (2 if bn == "paper" else 1)
    assert len(seen[0]) == (expected if comm.size > 1 else 0)


class Inner(chainer.Chain):
    def __init__(self, comm):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 3, 3, pad=1)
            self.norm = CrossBatchNormalization(3, comm)

    def forward(self, x):
        return F.tanh(self.norm(self.conv(x)))


class Block(chainer.Chain):
    def __init__(self, comm, through=None):
        super().__init__()
        self._through = through
        with self.init_scope():
            self.inner = Inner(comm)
            self.last = CrossBatchNormalization(3, comm)

    def forward(self, x):
        y = self.inner(x) if self._through is None else self._through(self.inner, x)
        return F.relu(self.last(y) + x)


def passed(comm, through, inner=None):
    """Return output, gradients and running statistics of a block."""
    np.random.seed(0)
    block = Block(comm, inner)
    conv, norm = block.inner.conv, block.inner.norm
    norm.label, block.last.label = "norm", "last"
    x = chainer.Variable(images(comm, 6, "float64") - 0.5)
    conv.W.array = conv.W.array.astype("float64")
    conv.b.array = conv.b.array.astype("float64")
    y = through(block, x)
    block.cleargrads()
    F.sum(y * y * y).backward()
    found = [y.array, x.grad, *(p.grad for _, p in sorted(block.namedparams()))]
    for link in (norm, block.last):
        found += [link.avg_mean, link.avg_var]
    return found


def plainly(block, x):
    return block(x)


@pytest.mark.parametrize(
    "through,inner,forwards",
    [
        (recompute, None, 2),
        (recompute, recompute, 2),
        (plainly, recompute, 2),
        # Chainer's own sends the statistics once more, and is right all the same.
        (F.forget, None, 4),
        (F.forget, recompute, 4),
    ],
)
def test_a_block_is_as_without(comm, counted, through, inner, forwards):
    expected = passed(comm, plainly)
    counted.clear()
    found = passed(comm, through, inner)
    for ours, theirs in zip(found, expected):
        assert np.array_equal(ours, theirs)
    sent = [layer for layer in counted if layer.endswith("forward")]
    assert len(sent) == (forwards if comm.size > 1 else 0)
    sent = [layer for layer in counted if layer.endswith("backward")]
    assert len(sent) == (2 if comm.size > 1 else 0)


def test_running_statistics_change_once(comm):
    link = CrossBatchNormalization(3, comm, decay=0.5)
    x = chainer.Variable(images(comm, 4))
    y = recompute(link, x)
    before = link.avg_mean.copy(), link.avg_var.copy()
    link.cleargrads()
    F.sum(y).backward()
    assert (link.avg_mean == before[0]).all() and (link.avg_var == before[1]).all()
    assert (link.avg_mean != 0).all()


def test_images_need_no_gradient(comm, counted):
    link = CrossBatchNormalization(3, comm)
    for x in (images(comm, 4), chainer.Variable(images(comm, 4), requires_grad=False)):
        link.cleargrads()
        F.sum(recompute(link, x) ** 2).backward()
        assert (link.gamma.grad != 0).all()
        assert not isinstance(x, chainer.Variable) or x.grad is None


def test_nothing_is_kept_for_no_backward_pass(comm):
    link = CrossBatchNormalization(3, comm)
    with chainer.no_backprop_mode():
        y = recompute(link, images(comm, 4))
    assert y.creator is None


def test_no_second_derivatives(comm):
    link = CrossBatchNormalization(3, comm)
    x = chainer.Variable(images(comm, 4))
    y = recompute(link, x)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        chainer.grad([y], [x], enable_double_backprop=True)


class Changing(chainer.ChainList):
    """Computes another of its links in each call."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return self[self.calls - 1](x)


def test_a_block_that_computes_something_else_is_refused(comm):
    block = Changing(*(CrossBatchNormalization(3, comm) for _ in range(2)))
    y = recompute(block, chainer.Variable(images(comm, 4)))
    with pytest.raises(RuntimeError, match="must compute the same again"):
        F.sum(y).backward()
