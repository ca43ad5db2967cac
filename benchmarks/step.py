"""Time training steps of a network on synthetic images.

    mpiexec -n 2 python benchmarks/step.py IMPLEMENTATION BATCH WIDTH FC_UNITS [MODEL]

MODEL is VGG16 by default; other models have their full width. Prints, as JSON, the
seconds of a step on the slowest rank (the median of several) and the peak memory of a
rank. compare.py and models.py start it once per implementation and round.
``multigpu`` and ``normal`` are this package's steps; ``chainermn`` is stock Chainer and
ChainerMN with MultiNodeBatchNormalization (but for the shortcuts of small ResNets, and
with dropout of ratio 0), ``chainermn-normal`` the same with
L.BatchNormalization; ``torch`` is PyTorch's DistributedDataParallel over gloo with
local batch normalization, ``torch-last`` the same with channels last.
``without-convolution`` and so on are ``multigpu`` with one part replaced by that of
Chainer or ChainerMN, ``profiled`` is ``multigpu`` with ``--profile``.
BENCHMARK_STEPS sets the number of timed steps.
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
OF_LARGE_IMAGES = ("alexnet", "googlenet", "resnet50", "resnet101", "resnet152")


def images(batch, name):
    state = np.random.RandomState(WORLD.rank)
    x = state.randint(0, 256, (batch, 3, side(name), side(name))).astype(np.uint8)
    return x, state.randint(0, N_CLASS, batch).astype(np.int32)


def side(name):
    return 224 if name in OF_LARGE_IMAGES else 32


def create(name, normalization, width, fc_units):
    from chainer_crossbn import models

    sizes = {"width": width, "fc_units": fc_units} if name == "vgg16" else {}
    return models.create(
        name, N_CLASS, normalization, dropout=0.0, image_size=side(name), **sizes
    )


def leave_out(part):
    """Put Chainer's own in the place of a part, before the model is made."""
    import chainer
    import chainer.functions as F

    from chainer_crossbn.links import convolution_2d
    from chainer_crossbn.models import vgg
    from chainer_crossbn.training import optimizers

    if part == "convolution":
        convolution_2d.convolution_2d = F.convolution_2d
    elif part == "pooling":
        vgg.max_pooling_2d = F.max_pooling_2d
    elif part == "optimizer":

        def stock(lr, momentum, weight_decay):
            return chainer.optimizers.MomentumSGD(lr, momentum)

        optimizers.MomentumSGD = stock


def our_step(bn, batch, width, fc_units, name, without=None, profiled=False):
    import chainer_crossbn  # noqa: F401  makes Chainer importable

    # isort: split
    leave_out(without)
    import chainer
    import chainermn

    from chainer_crossbn import communicators, kernels
    from chainer_crossbn.datasets.loading import Request
    from chainer_crossbn.kernels.cpu.memory import keep_freed_memory
    from chainer_crossbn.models import normalizations
    from chainer_crossbn.profiling import Profiler, Recorder
    from chainer_crossbn.training.optimizers import MomentumSGD
    from chainer_crossbn.training.updaters import GlobalUpdater, prime

    if without != "memory":
        keep_freed_memory()
    kernels.precompile()
    comm = communicators.create("naive" if without == "communicator" else "host", WORLD)
    model = create(name, normalizations.create(bn, comm), width, fc_units)
    cpu = chainer.get_device("@numpy")
    recorder = Recorder(model, cpu) if profiled else None
    optimizer = chainermn.create_multi_node_optimizer(
        MomentumSGD(0.01, 0.9, 5e-4), recorder.timed(comm) if recorder else comm
    )
    prime(optimizer.setup(model), comm)
    if without == "optimizer":
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    data = images(batch, name)

    class Iterator:
        is_new_epoch = False

        def __next__(self):
            return np.arange(batch), batch * comm.size

        def coming(self):
            while True:
                yield Request(np.arange(batch))

    updater = GlobalUpdater(
        {"main": Iterator()}, optimizer, *data, comm, cpu, context=recorder
    )
    if not profiled:
        return updater.update_core
    trainer = SimpleNamespace(updater=updater)
    evaluator = SimpleNamespace(seconds=0.0)
    profiler = Profiler(recorder, evaluator, comm)
    profiler.initialize(trainer)

    def step():
        updater.update_core()
        profiler(trainer)

    return step


def stock_step(bn, batch, width, fc_units, name):
    import chainer_crossbn  # noqa: F401  makes Chainer importable

    # isort: split
    import chainer
    import chainer.functions as F
    import chainer.links as L
    import chainermn
    from chainermn.links import MultiNodeBatchNormalization

    from chainer_crossbn.models import alexnet, googlenet, resnet, vgg

    comm = chainermn.create_communicator("naive")

    class Stock:
        conv = staticmethod(L.Convolution2D)
        linear = staticmethod(L.Linear)

        @staticmethod
        def norm(channels, index, total):
            if bn == "chainermn":
                return MultiNodeBatchNormalization(channels, comm)
            return L.BatchNormalization(channels)

    for module in (alexnet, googlenet, resnet, vgg):
        module.max_pooling_2d = F.max_pooling_2d
    model = L.Classifier(create(name, Stock, width, fc_units))
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.MomentumSGD(0.01, 0.9), comm
    )
    optimizer.setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    x, t = images(batch, name)

    def step():
        optimizer.update(model, x.astype(np.float32) / np.float32(255), t)

    return step


def torch_step(last, batch, width, fc_units, name):
    import torch
    import torch_models
    from torch import distributed, nn

    torch.set_num_threads(1)
    folder = WORLD.bcast(tempfile.mkdtemp() if WORLD.rank == 0 else None)
    distributed.init_process_group(
        "gloo", f"file://{folder}/store", rank=WORLD.rank, world_size=WORLD.size
    )
    model = torch_models.create(name, N_CLASS, width, fc_units)
    memory = torch.channels_last if last else torch.contiguous_format
    model = nn.parallel.DistributedDataParallel(model.to(memory_format=memory))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
    x, t = images(batch, name)
    x, t = torch.from_numpy(x), torch.from_numpy(t).long()
    loss_of = nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad()
        inputs = (x.float() / 255).contiguous(memory_format=memory)
        loss_of(model(inputs), t).backward()
        optimizer.step()

    return step


def main(implementation, batch, width, fc_units, name="vgg16"):
    sizes = batch, width, fc_units, name
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
    few = batch * width >= 1024 or name != "vgg16"
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
    # End without waiting for the threads of gloo.
    WORLD.Barrier()
    os._exit(0)


main(sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:])
