"""Reach the layers in different order on the ranks; print each rank's error as JSON.

Run under mpiexec with the name of a fault and the iteration that it happens in.
"""

import json
import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import time

import chainer
import chainer.functions as F
import chainermn
import numpy as np
from mpi4py import MPI

from chainer_crossbn import CollectiveError, CrossBatchNormalization


class Model(chainer.Chain):
    """Three layers; the last rank leaves their order at fault."""

    def __init__(self, comm):
        super().__init__()
        with self.init_scope():
            self.first = CrossBatchNormalization(4, comm)
            self.second = CrossBatchNormalization(4, comm)
            self.third = CrossBatchNormalization(4, comm)
            self.wide = CrossBatchNormalization(8, comm)
        for name, link in self.namedlinks(skipself=True):
            link.label = name

    def forward(self, x, fault):
        h = self.first(x)
        if fault == "order":
            h = self.second(self.third(h))
        elif fault == "channels":
            h = self.wide(F.concat([h, h]))[:, :4]
        elif fault == "skip":
            h = self.third(h)
        elif fault == "skip the last":
            h = self.second(h)
        else:
            h = self.third(self.second(h))
        return h


def step(model, x, fault):
    if fault == "late":
        time.sleep(3)
    y = model(x, fault)
    if fault == "no backward":
        return
    if fault == "part of backward":
        y = model.second(x)
    loss = F.sum(y * y)
    model.cleargrads()
    loss.backward()


def main(fault, iteration):
    comm = chainermn.create_communicator("naive")
    apart = MPI.COMM_WORLD.Dup()
    model = Model(comm)
    state = np.random.RandomState(comm.rank)
    error = None
    for i in range(1, iteration + 1):
        mine = fault if i == iteration and comm.rank == comm.size - 1 else None
        x = state.randn(3, 4).astype("float32")
        try:
            step(model, x, mine)
        except CollectiveError as caught:
            error = str(caught)
            break
    errors = apart.gather(error)
    if comm.rank == 0:
        print(json.dumps(errors), flush=True)


main(sys.argv[1], int(sys.argv[2]))
