"""Time training steps of VGG16 on synthetic images.

    mpiexec -n 2 python benchmarks/step.py IMPLEMENTATION BATCH WIDTH FC_UNITS

Prints, as JSON, the seconds of a step on the slowest rank (the median of some) and the
peak memory of a rank. Started by compare.py; one implementation a process.
``multigpu`` and ``normal`` are this package's steps; ``chainermn`` is stock Chainer and
ChainerMN with MultiNodeBatchNormalization, ``chainermn-normal`` the same with
L.BatchNormalization; ``torch`` is PyTorch's DistributedDataParallel over gloo with
local batch normalization, ``torch-last`` the same with channels last.
``without-convolution`` and so on are ``multigpu`` with Chainer's, or ChainerMN's, own
in the place of one part, ``profiled`` is ``multigpu`` with ``--profile``.
BENCHMARK_STEPS sets how many steps are timed.
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from types import SimpleNamespace

import numpy as np
from mpi4py import MPI

WORLD = MPI.COMM_WORLD
N_CLASS = 10
STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


def images(batch):
    state = np.random.RandomState(WORLD.rank)
    x = state.randint(0, 256, (batch, 3, 32, 32)).astype(np.uint8)
    return x, state.randint(0, N_CLASS, batch).astype(np.int32)


def leave_out(part):
    """Put Chainer's own in the place of a part, before the model is made."""
    import chainer
    import chainer.functions as F

    from chainer_crossbn import convolution_2d, optimizers
    from chainer_crossbn.models import vgg

    if part == "convolution":
        convolution_2d.convolution_2d = F.convolution_2d
    elif part == "pooling":
        vgg.max_pooling_2d = F.max_pooling_2d
    elif part == "optimizer":

        def stock(lr, momentum, weight_decay):
            return chainer.optimizers.MomentumSGD(lr, momentum)

        optimizers.MomentumSGD = stock


def our_step(bn, batch, width, fc_units, without=None, profiled=False):
    import chainer_crossbn  # noqa: F401  makes Chainer importable

    # isort: split
    leave_out(without)
    import chainer
    import chainermn

    from chainer_crossbn import communicators, kernels, normalizers
    from chainer_crossbn.kernels.memory import keep_freed_memory
    from chainer_crossbn.loading import Request
    from chainer_crossbn.models import VGG16
    from chainer_crossbn.optimizers import MomentumSGD
    from chainer_crossbn.profiling import Profiler
    from chainer_crossbn.updaters import GlobalUpdater, prime

    if without != "memory":
        keep_freed_memory()
    kernels.precompile()
    comm = communicators.create("naive" if without == "communicator" else "host", WORLD)
    model = VGG16(N_CLASS, normalizers.create(bn, comm), width, fc_units, dropout=0.0)
    optimizer = chainermn.create_multi_node_optimizer(
        MomentumSGD(0.01, 0.9, 5e-4), comm
    )
    prime(optimizer.setup(model), comm)
    if without == "optimizer":
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    data = images(batch)

    class Iterator:
        is_new_epoch = False

        def __next__(self):
            return np.arange(batch), batch * comm.size

        def coming(self):
            while True:
                yield Request(np.arange(batch))

    cpu = chainer.get_device("@numpy")
    updater = GlobalUpdater({"main": Iterator()}, optimizer, *data, comm, cpu)
    if not profiled:
        return updater.update_core
    trainer = SimpleNamespace(updater=updater)
    evaluator = SimpleNamespace(seconds=0.0)
    profiler = Profiler(model, updater, evaluator, comm, cpu)
    profiler.initialize(trainer)

    def step():
        updater.update_core()
        profiler(trainer)

    return step


def stock_step(bn, batch, width, fc_units):
    import chainer_crossbn  # noqa: F401  makes Chainer importable

    # isort: split
    import chainer
    import chainer.functions as F
    import chainer.links as L
    import chainermn
    from chainermn.links import MultiNodeBatchNormalization

    comm = chainermn.create_communicator("naive")

    def norm(channels):
        if bn == "chainermn":
            return MultiNodeBatchNormalization(channels, comm)
        return L.BatchNormalization(channels)

    layers, channels = [], 3
    for stage in STAGES:
        for multiple in stage:
            out = multiple * width
            conv = L.Convolution2D(channels, out, 3, pad=1, nobias=True)
            layers += [conv, norm(out), F.relu]
            channels = out
        layers.append(lambda x: F.max_pooling_2d(x, 2))
    sizes = (channels, fc_units, fc_units)
    for n_in, n_out in zip(sizes, sizes[1:]):
        layers += [L.Linear(n_in, n_out), F.relu]
    model = L.Classifier(chainer.Sequential(*layers, L.Linear(fc_units, N_CLASS)))
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.MomentumSGD(0.01, 0.9), comm
    )
    optimizer.setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    x, t = images(batch)

    def step():
        optimizer.update(model, x.astype(np.float32) / np.float32(255), t)

    return step


def torch_step(last, batch, width, fc_units):
    import torch
    from torch import distributed, nn

    torch.set_num_threads(1)
    folder = WORLD.bcast(tempfile.mkdtemp() if WORLD.rank == 0 else None)
    distributed.init_process_group(
        "gloo", f"file://{folder}/store", rank=WORLD.rank, world_size=WORLD.size
    )
    layers, channels = [], 3
    for stage in STAGES:
        for multiple in stage:
            out = multiple * width
            conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for n_in, n_out in ((channels, fc_units), (fc_units, fc_units)):
        layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
    model = nn.Sequential(*layers, nn.Linear(fc_units, N_CLASS))
    memory = torch.channels_last if last else torch.contiguous_format
    model = nn.parallel.DistributedDataParallel(model.to(memory_format=memory))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
    x, t = images(batch)
    x, t = torch.from_numpy(x), torch.from_numpy(t).long()
    loss_of = nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad()
        inputs = (x.float() / 255).contiguous(memory_format=memory)
        loss_of(model(inputs), t).backward()
        optimizer.step()

    return step


def main(implementation, *sizes):
    if implementation.startswith("without-"):
        part = implementation.split("-")[1]
        bn = "chainermn" if part == "link" else "multigpu"
        step = our_step(bn, *sizes, without=part)
    elif implementation == "profiled":
        step = our_step("multigpu", *sizes, profiled=True)
    elif implementation.startswith("torch"):
        step = torch_step(implementation == "torch-last", *sizes)
    elif implementation.startswith("chainermn"):
        step = stock_step(implementation, *sizes)
    else:
        step = our_step(implementation, *sizes)
    # The first two also broadcast and allocate.
    few = sizes[0] * sizes[1] >= 1024
    steps = int(os.environ.get("BENCHMARK_STEPS", 5 if few else 25))
    seconds = []
    for i in range(2 + steps):
        WORLD.Barrier()
        started = time.perf_counter()
        step()
        if i >= 2:
            seconds.append(time.perf_counter() - started)
    slowest = WORLD.allreduce(statistics.median(seconds), op=MPI.MAX)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = WORLD.allreduce(peak, op=MPI.MAX)
    if WORLD.rank == 0:
        print(json.dumps({"seconds": slowest, "peak_bytes": peak}), flush=True)
    # gloo's threads need no goodbye.
    WORLD.Barrier()
    os._exit(0)


main(sys.argv[1], *map(int, sys.argv[2:]))
