"""Reach the layers in different order on the ranks; print the ranks' errors as JSON.

Usage: order.py [--gpu] CASE..., where a case is "FAULT, ITERATION" or
"FAULT, ITERATION, COLLECTIVE". Each has a communicator of its own. Rank 0 prints one
object, with a list of errors for each case.

A last case "leaves, ITERATION" is printed by each rank that is left, as a list of its
error. With --gpu, for GPUs, on which errors come later, or what stands in for them,
faults behind the first iteration need a launch each: a device may wait forever after
one.
"""

import argparse
import json
import os

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
        time.sleep(5)  # until the others have given up
    y = model(x, fault, turn)
    if fault == "no backward":
        return
    if fault == "part of backward":
        y = model.second(x)
    loss = F.sum(y * y)
    model.cleargrads()
    loss.backward()


def error_of(comm, device, fault, iteration, on_gpu):
    """Return the error of this rank, ``None`` if there is none.

    The last rank is at fault in the last iteration, where "leaves" has none.
    """
    model = Model(comm)
    model.to_device(device)
    model.device.use()
    state = np.random.RandomState(comm.rank)
    usual = {"other": "either", "wide or narrow": "narrow or wide"}.get(fault)
    last_rank = comm.rank == comm.size - 1
    end = iteration - (fault == "leaves" and last_rank) + 2 * on_gpu
    for i in range(1, end + 1):
        mine = fault if i == iteration and last_rank else usual
        x = model.device.send(state.randn(3, 4).astype("float32"))
        try:
            step(model, x, mine, i)
        except CollectiveError as error:
            return str(error)
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("cases", nargs="+")
    args = parser.parse_args()
    world = MPI.COMM_WORLD
    # Of errors, in a world that no error disturbs.
    apart = world.Dup()
    device = f"@cupy:{world.rank}" if args.gpu else "@numpy"
    results = {}
    for case in args.cases:
        fault, iteration, *collective = case.split(", ")
        if collective:
            (os.environ["CHAINER_CROSSBN_COLLECTIVE"],) = collective
        comm = chainermn.create_communicator("naive", world.Dup())
        if fault == "leaves":
            if world.rank == 0:
                print(json.dumps(results), flush=True)
            apart.Barrier()
            error = error_of(comm, device, fault, int(iteration), args.gpu)
            # The last rank leaves before the others know.
            if world.rank < world.size - 1:
                print(json.dumps([error]), flush=True)
            return
        error = error_of(comm, device, fault, int(iteration), args.gpu)
        results[case] = apart.gather(error)
    if world.rank == 0:
        print(json.dumps(results), flush=True)
    if args.gpu:
        apart.Barrier()
        os._exit(0)  # a device that waits forever keeps MPI from ending


main()
