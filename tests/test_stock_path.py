"""The fast path beside Chainer's own functions, over a training of 100 steps."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainermn
import numpy as np
import pytest

from chainer_crossbn import datasets
from chainer_crossbn.links import convolution_2d
from chainer_crossbn.models import VGG16, normalizations, vgg
from chainer_crossbn.training.optimizers import MomentumSGD
from chainer_crossbn.training.updaters import as_input

STEPS = 100
pytestmark = pytest.mark.slow


def train(bn, optimizer, data, width, batch):
    """Return the losses of all steps and the accuracy of the last ten."""
    np.random.seed(0)
    comm = chainermn.create_communicator("naive")
    model = VGG16(
        data.n_class, normalizations.create(bn, comm), width=width, fc_units=32
    )
    optimizer.setup(model)
    if bn == "chainer":
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    order = np.random.RandomState(1).permutation(len(data.train_labels))
    losses, accuracies = [], []
    for i in range(STEPS):
        some = order[np.arange(i * batch, (i + 1) * batch) % len(order)]
        images = as_input(data.train_images[some], chainer.get_device("@numpy"))
        labels = data.train_labels[some]
        logits = model(images)
        loss = F.softmax_cross_entropy(logits, labels)
        model.cleargrads()
        loss.backward()
        optimizer.update()
        losses.append(float(loss.array))
        accuracies.append(float(F.accuracy(logits, labels).array))
    return np.array(losses), np.mean(accuracies[-10:])


def both(monkeypatch, dtype, lr, width, batch):
    """Train the fast way and Chainer's; return what ``train`` does, twice."""
    with chainer.using_config("dtype", np.dtype(dtype)):
        data = datasets.load("synthetic", None, train_size=640, test_size=10)
        ours = train("multigpu", MomentumSGD(lr, 0.9, 5e-4), data, width, batch)
        monkeypatch.setattr(convolution_2d, "convolution_2d", F.convolution_2d)
        monkeypatch.setattr(vgg, "max_pooling_2d", F.max_pooling_2d)
        stock = chainer.optimizers.MomentumSGD(lr, 0.9)
        return ours, train("chainer", stock, data, width, batch)


def test_in_float64_all_steps_are_chainers(monkeypatch):
    (losses, accuracy), (expected, stock) = both(
        monkeypatch, "float64", 0.02, width=4, batch=32
    )
    assert losses == pytest.approx(expected, rel=1e-9)
    assert accuracy == stock


def test_in_float32_rounding_alone_tells_them_apart(monkeypatch):
    (losses, _), (expected, _) = both(monkeypatch, "float32", 0.02, width=4, batch=64)
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    # It grows with each step (Chainer's own training is as far from that in float64).
    assert losses.mean() == pytest.approx(expected.mean(), rel=0.05)
    assert expected[-10:].mean() < 0.85 * expected[0]
