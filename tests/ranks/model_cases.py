"""Steps of each network over the ranks against one rank with the whole batch."""

import chainer
import chainermn
import numpy as np
import pytest
from reference import error

from chainer_crossbn import models
from chainer_crossbn.datasets.loading import Request
from chainer_crossbn.models import normalizations
from chainer_crossbn.training.updaters import GlobalUpdater, prime

WIDTHS = {
    **{"alexnet": 6, "googlenet": 8, "vgg16": 2, "resnet50": 4, "resnet101": 2},
    **{"resnet152": 2, "resnet20": 4, "resnet56": 2, "resnet110": 2},
}
PER_RANK = 4
# As others that are trained here, but of more blocks.
DEEP = {"resnet56", "resnet101", "resnet110", "resnet152"}
# Larger where else a channel of the last layers had but a value an image.
LARGE_IMAGES = {"alexnet", "googlenet", "resnet50", "resnet101", "resnet152"}


class Iterator:
    """Gives a rank its part of the images, which are few."""

    is_new_epoch = False

    def __init__(self, rank, n, total):
        self._next = np.arange(rank * n, (rank + 1) * n), total

    def __next__(self):
        return self._next

    def coming(self):
        while True:
            yield Request(self._next[0])


def stepped(comm, name, bn, n):
    """Return what a model holds after a step on the first ``n * comm.size`` images."""
    size = 64 if name in LARGE_IMAGES else 32
    np.random.seed(5)
    model = models.create(
        name,
        10,
        normalizations.create(bn, comm),
        **{"width": WIDTHS[name], "fc_units": 8, "dropout": 0, "image_size": size},
    )
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.MomentumSGD(0.01), comm
    ).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    prime(optimizer, comm)
    state = np.random.RandomState(0)
    total = n * comm.size
    images = state.randint(0, 256, (total, 3, size, size)).astype(np.uint8)
    labels = state.randint(0, 10, total).astype(np.int32)
    iterator = Iterator(comm.rank, n, total)
    cpu = chainer.get_device("@numpy")
    updater = GlobalUpdater({"main": iterator}, optimizer, images, labels, comm, cpu)
    before = [parameter.array.copy() for parameter in model.params()]
    updater.update()
    after = [parameter.array for parameter in model.params()]
    assert all((a != b).any() for a, b in zip(before, after))
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(model)
    return serializer.target


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in DEEP else ())
        for name in models.MODELS
    ],
)
def test_a_step_equals_that_of_one_rank_with_the_whole_batch(world, name):
    with chainer.using_config("dtype", np.float64):
        ours = stepped(world, name, "multigpu", PER_RANK)
        alone = world.split(world.rank, 0)
        theirs = stepped(alone, name, "chainer", PER_RANK * world.size)
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert error(value, theirs[key]) < 1e-10, key
