"""What recomputation saves, and how it shows in profiles and errors."""

import tracemalloc

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest

from chainer_crossbn import models
from chainer_crossbn.functions.recompute import recompute
from chainer_crossbn.models import normalizations
from chainer_crossbn.profiling.recorder import Recorder
from chainer_crossbn.training import not_finite


def made(name, recomputed):
    np.random.seed(0)
    comm = chainermn.create_communicator("naive")
    return models.create(
        name,
        10,
        normalizations.create("multigpu", comm),
        **{"width": 4, "fc_units": 8, "dropout": 0, "image_size": 64},
        recomputed=recomputed,
    )


def images(n):
    return np.random.RandomState(0).rand(n, 3, 64, 64).astype("float32")


def peak_bytes(name, recomputed):
    """Return what NumPy and Python have at most in a forward and backward pass."""
    model = made(name, recomputed)
    x, t = images(16), np.zeros(16, "int32")
    for tracing in (False, True):  # kernels are compiled before
        if tracing:
            tracemalloc.start()
        loss = F.softmax_cross_entropy(model(x), t)
        model.cleargrads()
        loss.backward()
        del loss
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    "name,most",
    [
        # What remains are the inputs of all blocks, and all that is in one of the
        # largest: the deeper the network, the less that is.
        *(("resnet20", 0.65), ("resnet110", 0.4), ("resnet50", 0.65)),
        *(("googlenet", 0.8), ("vgg16", 0.8)),
    ],
)
def test_it_takes_less_memory(name, most):
    assert peak_bytes(name, True) < most * peak_bytes(name, False)


def test_functions_of_a_block_are_noted_by_layer():
    layouts = []
    for recomputed in (False, True):
        model = made("resnet20", recomputed)
        recorder = Recorder(model, chainer.get_device("@numpy"))
        with recorder:
            F.sum(model(images(2))).backward()
        layouts.append(recorder.take_step((0.0,) * 6).layout)
    plain, again = layouts
    assert set(again.layers) == set(plain.layers)
    passes = [
        [
            int(layout.normalizes[layout.backward == backward].sum())
            for layout in layouts
        ]
        for backward in (False, True)
    ]
    # Computing again is a part of the backward pass.
    assert passes == [[19, 19], [19, 2 * 19]]


@pytest.mark.parametrize("place", [0, 4, 9])
def test_what_is_not_finite_is_found(place):
    model = made("resnet20", True)
    block = model.blocks[place]
    conv = block.conv if place == 0 else block.conv1.conv
    conv.W.array[0, 0, 0, 0] = np.nan
    with chainer.using_config("train", False):
        loss = F.softmax_cross_entropy(model(images(2)), np.zeros(2, "int32"))
    assert not_finite.origin(loss, model) == f"blocks/{place}"


@pytest.mark.parametrize("scale", [None, 128], ids=["dynamic", "fixed"])
def test_the_loss_scale_reaches_the_parameters_of_a_block(scale):
    x, t = images(4), np.arange(4, dtype="int32")
    results = []
    for recomputed in (True, False):
        model = made("resnet20", recomputed)
        optimizer = chainer.optimizers.SGD(lr=0.01).setup(model)
        optimizer.loss_scaling(scale=scale)
        classifier = L.Classifier(model, lossfun=F.softmax_cross_entropy)
        for _ in range(2):
            optimizer.update(classifier, x, t)
        results.append({path: p.array for path, p in model.namedparams()})
    for path, array in results[1].items():
        assert np.array_equal(results[0][path], array), path


def test_a_block_that_is_not_initialized_yet_and_shares_a_link():
    shared = L.Linear(None, 3)
    gradients = []
    for _ in range(2):
        block = chainer.Sequential(shared, F.tanh, shared)
        shared.cleargrads()
        F.sum(recompute(block, np.ones((2, 3), "float32"))).backward()
        gradients.append(shared.W.grad)
    assert np.array_equal(*gradients) and gradients[0].any()
