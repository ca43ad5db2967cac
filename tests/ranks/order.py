"""Reach the layers in a different order on the last rank; print all errors as JSON.

Run under mpiexec with the name of a fault and the iteration in which it occurs. With
`gpu`, arrays are on GPUs, or on what stands in for them, and errors come later.
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
    """Layers that the last rank passes in another order, depending on the fault."""

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
            # Alternately, so that both orders are checked before the fault.
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
        time.sleep(5)  # until the others have raised their errors
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
    separate = MPI.COMM_WORLD.Dup()
    model = Model(comm)
    model.to_device(f"@cupy:{comm.rank}" if on_gpu else "@numpy")
    model.device.use()
    state = np.random.RandomState(comm.rank)
    error = None
    usual = {"other": "either", "wide or narrow": "narrow or wide"}.get(fault)
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
        # The last rank ends before the others notice.
        if not last_rank:
            print(json.dumps([error]), flush=True)
        return
    errors = separate.gather(error)
    if comm.rank == 0:
        print(json.dumps(errors), flush=True)
    if on_gpu:
        separate.Barrier()
        os._exit(0)  # a device that waits forever keeps MPI from finalizing


main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["gpu"])
