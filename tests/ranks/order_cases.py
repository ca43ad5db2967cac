"""Copies of links are separate layers; models of a single rank do not matter."""

import copy
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest
from mpi4py import MPI

from chainer_crossbn import (
    CollectiveError,
    CrossBatchNormalization,
    create_cross_bn_model,
)


@pytest.fixture
def comm():
    """A communicator on which no layer was used before."""
    return chainermn.create_communicator("naive", MPI.COMM_WORLD.Dup())


class Block(chainer.Chain):
    """Several normalizations, which Chainer copies in an arbitrary order."""

    def __init__(self, comm, label=None):
        super().__init__()
        with self.init_scope():
            for name in "abcdef":
                setattr(self, name, CrossBatchNormalization(3, comm, label=label))

    def forward(self, x):
        for name in "abcdef":
            x = self[name](x)
        return x


def reloaded(model, comm):
    loaded = pickle.loads(pickle.dumps(model))
    for link in loaded.links():
        if isinstance(link, CrossBatchNormalization):
            link.comm = comm
    return loaded


MODES = "share", "copy", "init"
COPIES = {
    "copy.copy": lambda link, comm: [link, copy.copy(link)],
    "copy.deepcopy": lambda link, comm: [link, copy.deepcopy(link)],
    "deepcopy of a list": lambda link, comm: copy.deepcopy([link, link.copy()]),
    "pickle": lambda link, comm: [reloaded(link, comm) for _ in range(2)],
    "Sequential.repeat": lambda link, comm: chainer.Sequential(link).repeat(2),
    "conversion": lambda link, comm: [
        create_cross_bn_model(link, comm) for _ in range(2)
    ],
    **{
        f"copy {mode}": lambda link, comm, mode=mode: [link, link.copy(mode)]
        for mode in MODES
    },
    **{
        f"copies of a copy {mode}": lambda link, comm, mode=mode: [
            link.copy(mode).copy(mode) for _ in range(2)
        ]
        for mode in MODES
    },
    **{
        f"repeat {mode}": lambda link, comm, mode=mode: link.repeat(2, mode)
        for mode in MODES
    },
}
MODELS = {
    "a link": lambda comm: CrossBatchNormalization(3, comm),
    "a labelled link": lambda comm: CrossBatchNormalization(3, comm, label="it"),
    "a chain": Block,
    "a labelled chain": lambda comm: Block(comm, "it"),
}
# A shallow copy of a chain has the same links.
PAIRS = [
    (model, how)
    for model in MODELS
    for how in COPIES
    if not (how == "copy.copy" and "chain" in model)
]


def image():
    return chainer.Variable(np.random.RandomState(0).randn(4, 3).astype("float32"))


def step(links):
    x = image()
    for link in links:
        x = link(x)
    F.sum(x * x).backward()


@pytest.mark.parametrize("model,how", PAIRS)
def test_copies_in_another_order_are_an_error(comm, model, how):
    links = list(COPIES[how](MODELS[model](comm), comm))
    if comm.rank == comm.size - 1:
        links.reverse()
    with pytest.raises(CollectiveError, match="did not all reach the same layer"):
        step(links)


@pytest.mark.parametrize("model,how", PAIRS)
def test_copies_in_the_same_order_are_not(comm, model, how):
    links = COPIES[how](MODELS[model](comm), comm)
    for order in (links[:1], links, links[1:], links[::-1], links):
        step(order)


def test_links_of_two_communicators_are_distinguished(comm):
    other = chainermn.create_communicator("naive", comm.mpi_comm)
    links = [CrossBatchNormalization(3, c) for c in (comm, other)]
    if comm.rank == 0:
        links.reverse()
    with pytest.raises(CollectiveError, match="did not all reach the same layer"):
        step(links)


ON_ONE_RANK = {
    "a model": lambda block, comm: Block(comm),
    "a copy": lambda block, comm: block.copy(),
    "a deep copy": lambda block, comm: copy.deepcopy(block),
    "an unpickled copy": lambda block, comm: reloaded(block, comm),
    "a converted model": lambda block, comm: create_cross_bn_model(
        chainer.Sequential(block, L.BatchNormalization(3)), comm
    ),
}


@pytest.mark.parametrize("how", ON_ONE_RANK)
def test_models_of_a_single_rank_do_not_matter(comm, how):
    def construct_on_one_rank(block):
        if comm.rank == 0:
            with chainer.using_config("train", False):
                ON_ONE_RANK[how](block, comm)(image())

    construct_on_one_rank(Block(comm))
    first = Block(comm)
    construct_on_one_rank(first)
    step([first])
    construct_on_one_rank(first)
    copies = [first.copy(), copy.deepcopy(first), reloaded(first, comm)]
    construct_on_one_rank(copies[0])
    converted = create_cross_bn_model(chainer.Sequential(first), comm)
    for _ in range(2):
        step([*copies, Block(comm), converted, first])


def test_a_model_may_come_from_one_rank(comm):
    model = Block(comm) if comm.rank == 0 else None
    model = comm.bcast_obj(model)
    for link in model.children():
        link.comm = comm
    copied = model.copy()
    for _ in range(2):
        step([model, copied])
