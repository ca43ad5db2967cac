"""Time batch normalization, forward and backward, on GPUs over VGG16's 13 shapes.

    mpiexec -n 2 python benchmarks/gpu_layer.py BATCH...

Prints, as JSON, the device time in seconds of one pass over all shapes on the slowest
rank: for each local batch size and implementation, the medians of several rounds, in
which the implementations take turns, or the error of one that fails. `copy` is the
limit set by memory bandwidth: it reads and writes as many bytes as normalization must.
gpu.py starts this program. BENCHMARK_ROUNDS sets the number of rounds.
"""

import functools
import importlib.util
import json
import os
import statistics
import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.links as L
import chainermn
import numpy as np
from chainer.backends import cuda
from chainermn.links import MultiNodeBatchNormalization
from mpi4py import MPI

from chainer_crossbn import CrossBatchNormalization

SHAPES = [
    *[(64, 32)] * 2,
    *[(128, 16)] * 2,
    *[(256, 8)] * 3,
    *[(512, 4)] * 3,
    *[(512, 2)] * 3,
]
# Forward reads x twice and writes y; backward reads x and gy twice and writes gx.
TOUCHED = 8
ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", 7))
PASSES = 10  # of a round
WORLD = MPI.COMM_WORLD


class OneRankThatReduces:
    """A communicator of one rank whose vectors are reduced all the same."""

    size = 2  # of one rank, nothing would be
    mpi_comm = MPI.COMM_SELF


def arrays(batch, device):
    """Return pairs of x and gy on the device, for all shapes."""
    state = np.random.RandomState(WORLD.rank)
    pairs = []
    for channels, side in SHAPES:
        few = state.randn(2, 2, channels, side, side).astype(np.float32)
        few = device.send(few)
        pairs.append([cuda.cupy.concatenate([part] * (batch // 2)) for part in few])
    return pairs


def copies(pairs):
    for x, gy in pairs:
        for _ in range(TOUCHED // 2):  # each reads and writes
            cuda.cupy.copyto(gy, x)


def chainer_passes(make, pairs, device):
    layers = [(make(x.shape[1]), x, gy) for x, gy in pairs]
    for link, _, _ in layers:
        link.to_device(device)

    def run():
        for link, x, gy in layers:
            x = chainer.Variable(x)
            y = link(x)
            y.grad = gy
            link.cleargrads()
            y.backward()

    return run


def torch_passes(make, pairs):
    import torch

    torch.cuda.set_device(cuda.cupy.cuda.Device().id)
    layers = [
        (
            make(x.shape[1]).cuda(),
            torch.from_dlpack(x).requires_grad_(),
            torch.from_dlpack(gy),
        )
        for x, gy in pairs
    ]

    def run():
        for layer, x, gy in layers:
            x.grad = None
            layer.zero_grad()
            layer(x).backward(gy)

    return run


def implementations(pairs, device, shared):
    """Return what makes a pass, by name."""
    comm = chainermn.create_communicator("naive" if shared else "pure_nccl")
    found = {}
    if WORLD.size == 1:
        found["copy"] = functools.partial(copies, pairs)
        makers = {
            "normal": lambda c: CrossBatchNormalization(c, comm),
            "multigpu": lambda c: CrossBatchNormalization(c, OneRankThatReduces),
            "chainer": L.BatchNormalization,
        }
    else:
        makers = {"multigpu": lambda c: CrossBatchNormalization(c, comm)}
    makers["chainermn"] = lambda c: MultiNodeBatchNormalization(c, comm)
    for name, make in makers.items():
        found[name] = chainer_passes(make, pairs, device)
    if importlib.util.find_spec("torch") is None or shared:
        return found
    import torch

    if WORLD.size == 1:
        found["torch"] = torch_passes(torch.nn.BatchNorm2d, pairs)
    else:
        start = "tcp://127.0.0.1:29511"
        torch.distributed.init_process_group(
            "nccl", init_method=start, rank=WORLD.rank, world_size=WORLD.size
        )
        found["torch-sync"] = torch_passes(torch.nn.SyncBatchNorm, pairs)
    return found


def seconds_of(run):
    start, end = cuda.Event(), cuda.Event()
    start.record()
    run()
    end.record()
    end.synchronize()
    return cuda.cupy.cuda.get_elapsed_time(start, end) / 1e3


def round_of(run):
    seconds = []
    for _ in range(PASSES):
        WORLD.Barrier()
        seconds.append(seconds_of(run))
    return WORLD.allreduce(statistics.median(seconds), op=MPI.MAX)


def main(batches):
    node = WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    n_devices = cuda.cupy.cuda.runtime.getDeviceCount()
    device = chainer.get_device(f"@cupy:{node.rank % n_devices}")
    device.use()
    shared = node.size > n_devices
    found = {}
    for batch in batches:
        pairs = arrays(batch, device)
        passes = implementations(pairs, device, shared)
        found[batch] = {}
        for name, run in passes.items():  # which compiles, too
            try:
                round_of(run)
                found[batch][name] = []
            except Exception as error:
                found[batch][name] = f"{type(error).__name__}: {error}"
        for _ in range(ROUNDS):
            for name, seconds in found[batch].items():
                if isinstance(seconds, list):
                    seconds.append(round_of(passes[name]))
    if WORLD.rank == 0:
        print(json.dumps(found), flush=True)


main([int(word) for word in sys.argv[1:]])
