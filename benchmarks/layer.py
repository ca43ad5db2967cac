"""Time batch normalization, forward and backward, over VGG16's 13 shapes.

    mpiexec -n 2 python benchmarks/layer.py IMPLEMENTATION BATCH

Prints the seconds of one pass over all shapes on the slowest rank, as JSON: the median
of several passes. ``copy`` copies as many bytes as normalization must read and write.
compare.py starts this program once per implementation and round.
"""

import json
import statistics
import sys
import time

import numpy as np
from mpi4py import MPI

SHAPES = [
    *[(64, 32)] * 2,
    *[(128, 16)] * 2,
    *[(256, 8)] * 3,
    *[(512, 4)] * 3,
    *[(512, 2)] * 3,
]

# Forward reads x twice and writes y; backward reads x and gy twice and writes gx.
TOUCHED = 8


def arrays(batch):
    state = np.random.RandomState(MPI.COMM_WORLD.rank)
    for channels, side in SHAPES:
        shape = batch, channels, side, side
        yield tuple(state.randn(*shape).astype(np.float32) for _ in range(2))


def chainer_passes(implementation, batch):
    import chainer_crossbn  # makes Chainer importable

    # isort: split
    import chainer
    import chainer.links as L
    import chainermn
    from chainermn.links import MultiNodeBatchNormalization

    from chainer_crossbn.kernels.cpu.memory import keep_freed_memory

    keep_freed_memory()
    comm = chainermn.create_communicator("naive")
    alone = comm.split(comm.rank, 0)
    make = {
        "multigpu": lambda c: chainer_crossbn.CrossBatchNormalization(c, comm),
        "normal": lambda c: chainer_crossbn.CrossBatchNormalization(c, alone),
        "chainermn": lambda c: MultiNodeBatchNormalization(c, comm),
        "chainer": L.BatchNormalization,
    }[implementation]
    layers = [(make(x.shape[1]), x, gy) for x, gy in arrays(batch)]

    def run():
        for link, x, gy in layers:
            x = chainer.Variable(x)
            y = link(x)
            y.grad = gy
            link.cleargrads()
            y.backward()

    return run


def copies(batch):
    pairs = list(arrays(batch))

    def run():
        for _ in range(TOUCHED // 2):  # each reads and writes
            for x, gy in pairs:
                np.copyto(gy, x)

    return run


def torch_passes(batch):
    import torch

    torch.set_num_threads(1)
    layers = []
    for x, gy in arrays(batch):
        x = torch.from_numpy(x).requires_grad_()
        layers.append((torch.nn.BatchNorm2d(x.shape[1]), x, torch.from_numpy(gy)))

    def run():
        for layer, x, gy in layers:
            x.grad = None
            layer.zero_grad()
            layer(x).backward(gy)

    return run


def main(implementation, batch):
    if implementation == "torch":
        run = torch_passes(batch)
    elif implementation == "copy":
        run = copies(batch)
    else:
        run = chainer_passes(implementation, batch)
    world = MPI.COMM_WORLD
    seconds = []
    for _ in range(3 if batch > 8 else 50):
        run()
    for _ in range(7 if batch > 8 else 100):
        world.Barrier()
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    slowest = world.allreduce(statistics.median(seconds), op=MPI.MAX)
    if world.rank == 0:
        print(json.dumps({"seconds": slowest}), flush=True)


main(sys.argv[1], int(sys.argv[2]))
