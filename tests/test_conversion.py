"""create_cross_bn_model, on models however nested."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import warnings

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest
from chainermn.links import MultiNodeBatchNormalization

from chainer_crossbn import CrossBatchNormalization, create_cross_bn_model
from chainer_crossbn.links import PaperBatchNormalization


@pytest.fixture(scope="module")
def comm():
    return chainermn.create_communicator("naive")


class Block(chainer.Chain):
    def __init__(self, bn):
        super().__init__()
        with self.init_scope():
            self.linear = L.Linear(4, 4)
            self.bn = bn
        self.again = [self.bn]  # a second way to the same link

    def forward(self, x):
        return F.relu(self.again[0](self.linear(x)))


class Wrapper(chainer.Chain):
    def __init__(self, parts):
        super().__init__()
        with self.init_scope():
            self.parts = parts

    def forward(self, x):
        return self.parts[0](x)


def nested(comm):
    return chainer.Sequential(
        Block(L.BatchNormalization(4, decay=0.5, eps=0.1)),
        F.relu,
        chainer.Sequential(L.BatchNormalization(4, use_gamma=False), F.tanh),
        Wrapper(chainer.ChainList(Block(L.BatchNormalization(4)))),
        Block(MultiNodeBatchNormalization(4, comm)),
        Block(CrossBatchNormalization(4, comm.split(comm.rank, 0))),
    )


def input_of(n=6, seed=0):
    return np.random.RandomState(seed).randn(n, 4).astype("float32")


def trained(model):
    """Move running statistics and parameters away from where they start."""
    optimizer = chainer.optimizers.SGD(0.1).setup(model)
    for seed in range(3):
        model.cleargrads()
        F.sum(model(input_of(seed=seed)) ** 2).backward()
        optimizer.update()
    return model


def values_of(model):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(model)
    # Copies, as the serializer hands out the arrays themselves.
    return {name: np.array(value) for name, value in serializer.target.items()}


def kinds_of(model):
    return {path: type(link) for path, link in model.namedlinks()}


def test_every_batch_normalization_is_replaced(comm):
    model = trained(nested(comm))
    before, kinds = values_of(model), kinds_of(model)
    converted = create_cross_bn_model(model, comm)
    norms = {
        path: link
        for path, link in converted.namedlinks()
        if isinstance(link, CrossBatchNormalization)
    }
    assert len(norms) == 5
    assert all(link.comm is comm for link in norms.values())
    assert len({link.label for link in norms.values()}) == 5
    assert all(link.label.endswith(f"at {path}") for path, link in norms.items())
    # the original is as it was
    assert kinds_of(model) == kinds
    for name, value in values_of(model).items():
        assert (value == before[name]).all()
    # and the copy has its values and arguments, in arrays of its own
    after = values_of(converted)
    assert sorted(after) == sorted(before)
    for name, value in before.items():
        assert (after[name] == value).all(), name
    assert (converted[0].bn.decay, converted[0].bn.eps) == (0.5, 0.1)
    assert converted[2][0].gamma is None
    trained(converted)
    for name, value in values_of(model).items():
        assert (value == before[name]).all(), name


def test_all_ways_to_a_link_lead_to_the_new_one(comm):
    shared = L.BatchNormalization(4)
    model = chainer.Sequential(Block(shared), Block(shared))
    converted = create_cross_bn_model(model, comm)
    assert isinstance(converted[0].bn, CrossBatchNormalization)
    assert converted[0].bn is converted[1].bn
    assert converted[0].again[0] is converted[0].bn


def test_it_computes_what_the_original_does(comm):
    model = trained(
        chainer.Sequential(
            Block(L.BatchNormalization(4)), Block(L.BatchNormalization(4))
        )
    )
    alone = comm.split(comm.rank, 0)
    converted = create_cross_bn_model(model, alone)
    for train in (True, False):
        with chainer.using_config("train", train):
            assert np.allclose(
                model(input_of()).array, converted(input_of()).array, atol=1e-5
            )


def test_a_model_may_hold_communicators(comm):
    """As links of ChainerMN do; MPI handles can't be copied."""
    other = comm.split(comm.rank, 0)
    model = chainer.Sequential(L.BatchNormalization(4))
    model.comm = other
    converted = create_cross_bn_model(model, comm)
    assert converted.comm is other
    assert converted[0].comm is comm


def test_subclasses_of_ours_get_the_communicator(comm):
    model = chainer.ChainList(PaperBatchNormalization(4, comm.split(comm.rank, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted = create_cross_bn_model(model, comm)
    assert type(converted[0]) is PaperBatchNormalization
    assert converted[0].comm is comm


@pytest.mark.parametrize(
    "make",
    [
        lambda comm: L.BatchNormalization(4),
        lambda comm: L.BatchNormalization(axis=(0, 2)),
        lambda comm: MultiNodeBatchNormalization(4, comm),
        lambda comm: CrossBatchNormalization(4, comm),
    ],
)
def test_a_link_alone(comm, make):
    link = make(comm)
    converted = create_cross_bn_model(link, comm)
    assert type(converted) is CrossBatchNormalization
    assert converted is not link
    assert converted.axis == getattr(link, "axis", None)
    converted(np.ones((2, 4, 3), "float32"))
    assert converted.gamma.shape == (4,)


def test_what_belongs_to_the_parameters_stays(comm):
    model = Block(L.BatchNormalization(4))
    chainer.optimizers.Adam().setup(model)
    model.bn.gamma.update_rule.enabled = False
    gamma = create_cross_bn_model(model, comm).bn.gamma
    assert gamma.name == "gamma"
    assert isinstance(gamma.update_rule, chainer.optimizers.adam.AdamRule)
    assert not gamma.update_rule.enabled


def test_others_are_left_alone_and_named(comm):
    class MyNormalization(L.BatchNormalization):
        pass

    others = (
        L.BatchRenormalization(4),
        L.DecorrelatedBatchNormalization(4, groups=1),
        MyNormalization(4),
    )
    model = chainer.ChainList(*others, L.GroupNormalization(2, 4), L.Linear(4, 4))
    with pytest.warns(UserWarning) as caught:
        converted = create_cross_bn_model(model, comm)
    message = str(caught[0].message)
    for path, link in zip(("/0", "/1", "/2"), others):
        assert f"{path} ({type(link).__name__})" in message
    assert "/3" not in message and "/4" not in message
    assert kinds_of(converted) == kinds_of(model)


def test_nothing_is_said_where_nothing_is_left(comm):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".* is experimental", FutureWarning)
        create_cross_bn_model(nested(comm), comm)


def test_a_sequential_may_hold_a_lambda(comm):
    original = chainer.Sequential(
        L.Linear(4, 4),
        chainer.Sequential(L.BatchNormalization(4), lambda x: F.relu(x)),
    )
    model = create_cross_bn_model(original, comm)
    assert type(model[1][0]) is CrossBatchNormalization
    assert type(original[1][0]) is L.BatchNormalization
    assert model[0].W is not original[0].W
    x = input_of()
    np.testing.assert_allclose(model(x).array, original(x).array, rtol=1e-5, atol=1e-6)


class Closure(chainer.Chain):
    def __init__(self, post):
        super().__init__()
        with self.init_scope():
            self.bn = L.BatchNormalization(4)
        self.post = post(self)


def of_closure(link):
    return lambda h: F.relu(link.bn(h))


def of_default(link):
    return lambda h, bn=link.bn: F.relu(bn(h))


@pytest.mark.parametrize("post", [of_closure, of_default])
def test_functions_that_use_links_of_the_original_are_named(comm, post):
    with pytest.warns(UserWarning, match="/post"):
        create_cross_bn_model(Closure(post), comm)


def test_bound_methods_use_the_links_of_the_copy(comm):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = create_cross_bn_model(Closure(lambda link: link.bn.forward), comm)
    assert model.post.__self__ is model.bn


@pytest.mark.parametrize("size", [None, 4])
def test_links_print(comm, size):
    assert "size=" in str(CrossBatchNormalization(size, comm, axis=0))


def test_a_communicator_of_mpi4py(comm):
    link = CrossBatchNormalization(4, comm.mpi_comm)
    expected = CrossBatchNormalization(4, comm)(input_of()).array
    np.testing.assert_array_equal(link(input_of()).array, expected)
