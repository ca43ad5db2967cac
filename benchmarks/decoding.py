"""Measure how many images per second threads decode and a training step processes.

    python benchmarks/decoding.py [--threads 1 2 4] [--data DIR]

Without DIR, it writes 64 JPEG files of 500 x 375 pixels, like those of ImageNet, with
smooth random colours and noise. With DIR, it reads the first 256 training images there.
Files are read repeatedly, so that the disk is not measured. The training step is that
of VGG16 with multigpuBN in full width, on one rank with 2 images.
"""

import argparse
import os
import tempfile
import time

import numpy as np

from chainer_crossbn import datasets  # before Chainer

# isort: split
import chainer
import chainermn
from PIL import Image

from chainer_crossbn.datasets.loading import Loader, Request
from chainer_crossbn.models import VGG16, normalizations
from chainer_crossbn.training.iterators import ShareIterator
from chainer_crossbn.training.optimizers import MomentumSGD
from chainer_crossbn.training.updaters import GlobalUpdater, prime

N_CLASS = 10
BATCH = 16
STEP_BATCH = 2


def write_images(root):
    state = np.random.RandomState(0)
    for part, n in (("train", 64), ("val", 1)):
        folder = os.path.join(root, part, "class")
        os.makedirs(folder)
        for i in range(n):
            small = state.randint(0, 256, (24, 32, 3)).astype(np.uint8)
            large = Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC)
            noisy = np.asarray(large) + state.randint(-12, 13, (375, 500, 3))
            image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            image.save(os.path.join(folder, f"{i}.jpg"), quality=90)


def rate(images, threads, seconds):
    """Return the number of images that a loader makes per second."""
    loader = Loader(threads)
    state = np.random.RandomState(0)

    def requests():
        for epoch in range(10**6):
            yield Request(state.randint(0, len(images), BATCH), (0, epoch))

    batches = loader(images, requests())
    next(batches)
    started = time.perf_counter()
    n = 0
    while time.perf_counter() < started + seconds:
        n += len(next(batches))
    elapsed = time.perf_counter() - started
    batches.close()
    loader.close()
    return n / elapsed


def step_rate(side, steps):
    """Return the number of images that training steps take per second, a median."""
    comm = chainermn.create_communicator("naive")
    model = VGG16(
        N_CLASS, normalizations.create("multigpu", comm), dropout=0, image_size=side
    )
    optimizer = chainermn.create_multi_node_optimizer(MomentumSGD(1e-4, 0.9, 0), comm)
    optimizer.setup(model)
    images = np.zeros((STEP_BATCH, 3, side, side), np.uint8)
    images[:] = np.random.RandomState(0).randint(0, 256, images.shape)
    model(images[:1].astype(np.float32))
    prime(optimizer, comm)
    updater = GlobalUpdater(
        ShareIterator(STEP_BATCH, STEP_BATCH, 0, 1, 0),
        optimizer,
        images,
        np.arange(STEP_BATCH, dtype=np.int32),
        comm,
        chainer.get_device("@numpy"),
    )
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        updater.update()
        times.append(time.perf_counter() - started)
    return STEP_BATCH / np.median(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--data", metavar="DIR")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            write_images(folder)
        for side in (224, 256):
            root = args.data or folder
            files = datasets.load("folder", root, side=side).train_images[:256]
            drawn = datasets.load("synthetic", side=side).train_images
            for threads in args.threads:
                print(
                    f"{side} x {side}, {threads} threads: "
                    f"{rate(files, threads, args.seconds):.0f} images/s decoded, "
                    f"{rate(drawn, threads, args.seconds):.0f} drawn",
                    flush=True,
                )
            trained = step_rate(side, args.steps)
            print(f"{side} x {side}: {trained:.2f} images/s trained", flush=True)


if __name__ == "__main__":
    main()
