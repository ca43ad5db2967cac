"""Time batch normalization, forward and backward, on GPUs over VGG16's 13 shapes.

    mpiexec -n 2 python benchmarks/gpu_layer.py IMPLEMENTATION BATCH

Prints the seconds of one pass over all shapes, as the device has it, on the slowest
rank, as JSON: the median of some passes. `copy` is the limit that memory sets: it
reads and writes as many bytes as normalization must. Started by gpu.py.
BENCHMARK_PASSES sets how many are timed.
"""

import json
import os
import statistics
import sys

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
PASSES = int(os.environ.get("BENCHMARK_PASSES", 30))
WARM_UP = max(1, PASSES // 3)


def arrays(batch):
    state = np.random.RandomState(MPI.COMM_WORLD.rank)
    for channels, side in SHAPES:
        shape = batch, channels, side, side
        yield tuple(state.randn(*shape).astype(np.float32) for _ in range(2))


def chainer_passes(implementation, batch):
    """Return what makes a pass, and what times a call on the device in seconds."""
    import chainer_crossbn  # makes Chainer importable

    # isort: split
    import chainer
    import chainer.links as L
    import chainermn
    from chainer.backends import cuda
    from chainermn.links import MultiNodeBatchNormalization

    world = MPI.COMM_WORLD
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    n_devices = cuda.cupy.cuda.runtime.getDeviceCount()
    device = chainer.get_device(f"@cupy:{node.rank % n_devices}")
    device.use()
    shared = node.size > n_devices
    comm = chainermn.create_communicator("naive" if shared else "pure_nccl")
    alone = comm.split(comm.rank, 0)

    def seconds_of(call):
        start, end = cuda.Event(), cuda.Event()
        start.record()
        call()
        end.record()
        end.synchronize()
        return cuda.cupy.cuda.get_elapsed_time(start, end) / 1e3

    pairs = [(device.send(x), device.send(gy)) for x, gy in arrays(batch)]
    if implementation == "copy":

        def copy():
            for x, gy in pairs:
                for _ in range(TOUCHED // 2):  # each reads and writes
                    cuda.cupy.copyto(gy, x)

        return copy, seconds_of
    make = {
        "multigpu": lambda c: chainer_crossbn.CrossBatchNormalization(c, comm),
        "normal": lambda c: chainer_crossbn.CrossBatchNormalization(c, alone),
        "chainermn": lambda c: MultiNodeBatchNormalization(c, comm),
        "chainer": L.BatchNormalization,
    }[implementation]
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

    return run, seconds_of


def torch_passes(implementation, batch):
    """As :func:`chainer_passes`, for PyTorch."""
    import torch

    world = MPI.COMM_WORLD
    rank = world.Split_type(MPI.COMM_TYPE_SHARED).rank
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    make = torch.nn.BatchNorm2d
    if implementation == "torch-sync":
        make = torch.nn.SyncBatchNorm
        init = "tcp://127.0.0.1:29511"
        torch.distributed.init_process_group(
            "nccl", init_method=init, rank=world.rank, world_size=world.size
        )
    layers = []
    for x, gy in arrays(batch):
        x = torch.from_numpy(x).to(device).requires_grad_()
        layer = make(x.shape[1]).to(device)
        layers.append((layer, x, torch.from_numpy(gy).to(device)))

    def run():
        for layer, x, gy in layers:
            x.grad = None
            layer.zero_grad()
            layer(x).backward(gy)

    def seconds_of(call):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return run, seconds_of


def main(implementation, batch):
    passes = torch_passes if implementation.startswith("torch") else chainer_passes
    run, seconds_of = passes(implementation, batch)
    world = MPI.COMM_WORLD
    for _ in range(WARM_UP):
        run()
    seconds = []
    for _ in range(PASSES):
        world.Barrier()
        seconds.append(seconds_of(run))
    slowest = world.allreduce(statistics.median(seconds), op=MPI.MAX)
    if world.rank == 0:
        print(json.dumps({"seconds": slowest}), flush=True)


main(sys.argv[1], int(sys.argv[2]))
