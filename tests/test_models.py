"""The networks beside what was published of them."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest
from chainer import gradient_check

from chainer_crossbn import CrossBatchNormalization, models
from chainer_crossbn.commands.train import options
from chainer_crossbn.errors import UsageError
from chainer_crossbn.functions.subsample import subsample_and_widen
from chainer_crossbn.models import MODELS, normalizations

# Parameters of the full network with 1000 classes for large images, with 10 for those
# of 32x32, and normalizations. He et al. (2016) have "0.27M", "0.85M" and "1.7M" for
# 20, 56 and 110 layers; 25.6, 44.5 and 60.2 million are known for 50, 101 and 152.
NORMALIZED = {
    "resnet20": (269_722, 19),
    "resnet56": (853_018, 55),
    "resnet110": (1_727_962, 109),
    "resnet50": (25_557_032, 53),
    "resnet101": (44_549_160, 104),
    "resnet152": (60_192_808, 155),
    # 6,998,552 without, and one more for each channel of its convolutions
    "googlenet": (7_005_832, 57),
    "alexnet": (60_966_600, 5),
    "vgg16": (138_361_768, 13),
}
SMALL_IMAGES = ("resnet20", "resnet56", "resnet110")
# As published, with biases: AlexNet in two groups, GoogLeNet of table 1, VGG's D.
PLAIN = {"alexnet": 60_965_224, "googlenet": 6_998_552, "vgg16": 138_357_544}
WIDTHS = {
    **{"alexnet": 6, "googlenet": 4, "vgg16": 1, "resnet50": 2, "resnet101": 1},
    **{"resnet152": 1, "resnet20": 2, "resnet56": 1, "resnet110": 1},
}


@pytest.fixture(scope="module")
def comm():
    return chainermn.create_communicator("naive")


def full(name, normalization):
    n_class = 10 if name in SMALL_IMAGES else 1000
    # Of equal weights, as random ones take time.
    return models.create(name, n_class, normalization, image_size=224, initialW=0)


def small(name, normalization, image_size=None, **options):
    size = image_size or max(32, MODELS[name].least_image_size)
    settings = {"width": WIDTHS[name], "fc_units": 8, "dropout": 0, "image_size": size}
    model = models.create(name, 7, normalization, **{**settings, **options})
    x = np.random.RandomState(0).rand(2, 3, size, size).astype("float32")
    return model, x


def count(model):
    return sum(parameter.size for parameter in model.params())


def test_all_are_here():
    assert sorted(NORMALIZED) == sorted(MODELS)


@pytest.mark.parametrize("name", NORMALIZED)
def test_parameters_of_the_normalized_network(comm, name):
    model = full(name, normalizations.create("multigpu", comm))
    parameters, n_normalizations = NORMALIZED[name]
    assert count(model) == parameters
    assert model.n_normalizations == n_normalizations
    links = list(model.links())
    norms = [link for link in links if isinstance(link, CrossBatchNormalization)]
    convolutions = [link for link in links if isinstance(link, L.Convolution2D)]
    assert len(norms) == len(convolutions) == n_normalizations
    assert all(link.b is None for link in convolutions)


@pytest.mark.parametrize("name", PLAIN)
def test_parameters_of_the_published_network(comm, name):
    assert count(full(name, normalizations.create("none", comm))) == PLAIN[name]


class Places(normalizations.Normalization):
    """Notes the places that are given out, and those that are passed."""

    def __init__(self):
        self.given = []
        self.passed = []

    def norm(self, channels, index, total):
        self.given.append((channels, index, total))
        places = self

        class Place(chainer.Link):
            def forward(self, x):
                places.passed.append((x.shape[1], index, total))
                return x

        return Place()


@pytest.mark.parametrize("name", MODELS)
def test_normalizations_are_counted_in_forward_order(name):
    places = Places()
    model, x = small(name, places)
    total = MODELS[name].n_normalizations
    assert [place[1:] for place in places.given] == [(i, total) for i in range(total)]
    model(x)
    assert places.passed == places.given


@pytest.mark.parametrize("bn", normalizations.NAMES)
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet20", "resnet50"])
def test_every_normalization(comm, name, bn):
    normalization = normalizations.create(bn, comm)
    model, x = small(name, normalization)
    normalization.prepare(model, x)
    y = model(x)
    assert y.shape == (2, 7)
    model.cleargrads()
    F.softmax_cross_entropy(y, np.array([0, 6], "int32")).backward()
    for path, parameter in model.namedparams():
        assert np.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("image_size", [32, 64, 75, 224])
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet20", "resnet50"])
def test_image_sizes(comm, name, image_size):
    normalization = normalizations.create("none", comm)
    if image_size < MODELS[name].least_image_size:
        with pytest.raises(ValueError, match="AlexNet takes images of 63x63 or more"):
            small(name, normalization, image_size)
        return
    model, x = small(name, normalization, image_size)
    assert model(x).shape == (2, 7)


@pytest.mark.parametrize("name", MODELS)
def test_smallest_images(comm, name):
    least = MODELS[name].least_image_size
    model, x = small(name, normalizations.create("multigpu", comm), least)
    assert model(x).shape == (2, 7)
    if name in ("alexnet", "googlenet"):
        with pytest.raises((ValueError, AssertionError)):
            model, x = small(name, normalizations.create("multigpu", comm), least - 1)
            model(x)


@pytest.mark.parametrize("end,place", [("front", 2), ("back", -2)])
def test_some_layers(comm, end, place):
    rule = normalizations.create("multigpu", comm, layers=(end, 3), rest="none")
    model, x = small("resnet50", rule)
    model(x)
    # conv1, and two of the first block; or two of the last block, which projects not
    where = {"front": ("/blocks/0/", "/blocks/1/"), "back": ("/blocks/16/",)}[end]
    norms = [
        path
        for path, link in model.namedlinks()
        if isinstance(link, CrossBatchNormalization)
    ]
    assert len(norms) == 3
    assert all(path.startswith(where) for path in norms), norms


@pytest.mark.parametrize("bn", ["multigpu", "group", "layer", "none"])
@pytest.mark.parametrize("name", ["resnet20", "resnet50"])
def test_zero_gamma_makes_blocks_begin_as_the_identity(comm, name, bn):
    normalization = normalizations.create(bn, comm)
    model, x = small(name, normalization, zero_gamma=True)
    normalization.prepare(model, x)
    block = model.blocks[2]
    channels = block.conv1.conv.W.shape[1]
    side = {"resnet20": 32, "resnet50": 8}[name]
    x = np.random.RandomState(1).randn(2, channels, side, side).astype("float32")
    same = (block(x).array == np.maximum(x, 0)).all()
    assert same == (bn != "none")


def test_responses_are_normalized_where_nothing_else_does(comm):
    found = {}

    class Names(chainer.FunctionHook):
        name = "names"

        def forward_postprocess(self, function, in_data):
            found.setdefault(bn, []).append(function.label)

    for name in ("alexnet", "googlenet"):
        for bn in ("none", "multigpu"):
            model, x = small(name, normalizations.create(bn, comm))
            with Names():
                model(x)
        labels = [found.pop(bn) for bn in ("none", "multigpu")]
        assert [part.count("LocalResponseNormalization") for part in labels] == [2, 0]


@pytest.mark.parametrize("order", ["C", "channels last"])
def test_subsampling(order):
    x, gy, ggx = (
        np.random.RandomState(i).randn(*shape)
        for i, shape in enumerate([(2, 3, 5, 4), (2, 5, 3, 2), (2, 3, 5, 4)])
    )
    if order == "channels last":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    y = subsample_and_widen(x, 2, 5).array
    assert (y[:, :3] == x[:, :, ::2, ::2]).all() and (y[:, 3:] == 0).all()
    assert y.flags.c_contiguous == (order == "C")

    def function(v):
        return subsample_and_widen(v, 2, 5) ** 2

    gradient_check.check_backward(function, x, gy, dtype=np.float64)
    gradient_check.check_double_backward(function, x, gy, ggx, dtype=np.float64)


def parsed(*flags):
    args = options.parse(flags)
    options.complete(args, 8)
    return args


@pytest.mark.parametrize(
    "name,width,units",
    [
        *(("vgg16", 64, 4096), ("alexnet", 96, 4096), ("resnet110", 16, None)),
        *(("resnet50", 64, None), ("googlenet", 64, None)),
    ],
)
def test_defaults_are_those_of_the_model(name, width, units):
    args = parsed("--model", name)
    assert (args.width, args.fc_units) == (width, units)
    assert args.name == f"{name}-multigpu-b64-r8-s0"
    assert parsed("--model", name, "--width", "3").width == 3


def test_names_tell_of_the_options():
    args = parsed("--model", "resnet50", "--zero-gamma", "--recompute")
    assert args.name == "resnet50-multigpu-zero-gamma-recompute-b64-r8-s0"


BAD = {
    "--model resnet20 --fc-units 4": "--fc-units applies to --model alexnet or vgg16, "
    "not resnet20",
    "--model resnet20 --dropout 0.5": "--dropout applies to --model alexnet, googlenet "
    "or vgg16, not resnet20",
    "--model vgg16 --zero-gamma": "--zero-gamma applies to --model resnet20, resnet50, "
    "resnet56, resnet101, resnet110 or resnet152, not vgg16",
    "--model resnet20 --zero-gamma --bn none": "--bn none has no gamma",
    "--model resnet20 --bn-layers back:20": "--bn-layers back:20 is more than the 19 "
    "normalizations of resnet20",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_arguments(flags):
    with pytest.raises(UsageError) as caught:
        parsed(*flags.split())
    assert BAD[flags] in str(caught.value)
