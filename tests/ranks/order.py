"""Reach the layers in different order on the ranks; print each rank's error as JSON.

Run under mpiexec with the name of a fault and the iteration that it happens in, and
with `gpu` where GPUs, on which errors come later, or what stands in for them are used.
"""

import json
import os
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
    """Layers of which the last rank leaves the order at fault."""

    def __init__(self, comm):
        super().__init__()
        with self.init_scope():
            self.first = CrossBatchNormalization(4, comm, label="/first")
            self.second = CrossBatchNormalization(4, comm, label="/second")
            self.third = CrossBatchNormalization(4, comm, label="/third")
            self.wide = CrossBatchNormalization(8, comm, label="/wide")

    def forward(self, x, fault, turn):
        h = self.first(x)
        if fault in ("either", "other"):
            # In turn, so that both are known to follow the first.
            return (self.second, self.third)[(turn + (fault == "other")) % 2](h)
        if fault in ("narrow or wide", "wide or narrow"):
            if (turn + (fault == "wide or narrow")) % 2:
                return self.second(h)
            return self.wide(F.concat([h, h]))
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


def step(model, x, fault, turn):
    if fault == "late":
        time.sleep(5)  # when the others have ended, last words included
    y = model(x, fault, turn)
    if fault == "no backward":
        return
    if fault == "part of backward":
        y = model.second(x)
    loss = F.sum(y * y)
    model.cleargrads()
    loss.backward()


def main(fault, iteration, on_gpu):
    comm = chainermn.create_communicator("naive")
    apart = MPI.COMM_WORLD.Dup()
    model = Model(comm)
    model.to_device(f"@cupy:{comm.rank}" if on_gpu else "@numpy")
    model.device.use()
    state = np.random.RandomState(comm.rank)
    error = None
    usual = {"other": "either", "wide or narrow": "narrow or wide"}.get(fault)
    # One that ends early has no iteration left to be at fault in.
    last_rank = comm.rank == comm.size - 1
    early = fault == "one iteration fewer" and last_rank
    for i in range(1, iteration + 1 - early + 2 * on_gpu):
        mine = fault if i == iteration and last_rank else usual
        x = model.device.send(state.randn(3, 4).astype("float32"))
        try:
            step(model, x, mine, i)
        except CollectiveError as caught:
            error = str(caught)
            break
    if fault == "one iteration fewer":
        # The last rank leaves before the others know.
        if not last_rank:
            print(json.dumps([error]), flush=True)
        return
    errors = apart.gather(error)
    if comm.rank == 0:
        print(json.dumps(errors), flush=True)
    if on_gpu:
        apart.Barrier()
        os._exit(0)  # a device that waits for ever keeps MPI from ending


main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["gpu"])
