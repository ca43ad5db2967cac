"""Time the 13 convolutions of VGG16, forward and backward.

    mpiexec -n 1 python benchmarks/convolution.py IMPLEMENTATION BATCH

Prints, as JSON, the seconds of one pass over all of them: the median of several passes.
The first convolution computes no gradient of its input, the images. IMPLEMENTATION is
``ours``, ``chainer`` (F.convolution_2d), ``torch`` or ``torch-last`` (channels last).
Each gets its arrays in the memory layout of its own outputs.
"""

import json
import statistics
import sys
import time

import numpy as np

SHAPES = [
    *((3, 64, 32), (64, 64, 32)),
    *((64, 128, 16), (128, 128, 16)),
    *((128, 256, 8), (256, 256, 8), (256, 256, 8)),
    *((256, 512, 4), (512, 512, 4), (512, 512, 4)),
    *[(512, 512, 2)] * 3,
]


def arrays(batch):
    state = np.random.RandomState(0)
    for inputs, outputs, side in SHAPES:
        yield tuple(
            state.randn(*shape).astype(np.float32)
            for shape in (
                (batch, inputs, side, side),
                (outputs, inputs, 3, 3),
                (batch, outputs, side, side),
            )
        )


def chainer_passes(implementation, batch):
    import chainer_crossbn  # noqa: F401  makes Chainer importable

    # isort: split
    import chainer
    import chainer.functions as F

    from chainer_crossbn.functions.convolution_2d import convolution_2d
    from chainer_crossbn.kernels.cpu.memory import (
        as_channels_first,
        channels_last,
        keep_freed_memory,
    )

    def in_order(v):
        if implementation == "chainer":
            return v
        return as_channels_first(channels_last(v))

    keep_freed_memory()
    function = F.convolution_2d if implementation == "chainer" else convolution_2d
    layers = [(in_order(x), w, in_order(gy)) for x, w, gy in arrays(batch)]

    def run():
        for i, (x, w, gy) in enumerate(layers):
            y = function(
                chainer.Variable(x, requires_grad=i > 0), chainer.Variable(w), pad=1
            )
            y.grad = gy
            y.backward()

    return run


def torch_passes(last, batch):
    import torch

    torch.set_num_threads(1)
    memory = torch.channels_last if last else torch.contiguous_format
    layers = [
        [torch.from_numpy(v).contiguous(memory_format=memory) for v in layer]
        for layer in arrays(batch)
    ]
    for i, (x, w, _) in enumerate(layers):
        x.requires_grad_(i > 0)
        w.requires_grad_()

    def run():
        for x, w, gy in layers:
            x.grad = w.grad = None
            torch.nn.functional.conv2d(x, w, padding=1).backward(gy)

    return run


def main(implementation, batch):
    if implementation.startswith("torch"):
        run = torch_passes(implementation == "torch-last", batch)
    else:
        run = chainer_passes(implementation, batch)
    seconds = []
    for i in range(7):
        started = time.perf_counter()
        run()
        if i >= 2:
            seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(seconds)}))


main(sys.argv[1], int(sys.argv[2]))
