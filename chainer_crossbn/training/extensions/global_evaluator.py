"""Evaluation by all ranks together."""

import time
from typing import Optional

import chainer
import chainer.functions as F
import numpy
from chainer.training import extension

from chainer_crossbn.datasets import loading
from chainer_crossbn.training.progress import Progress
from chainer_crossbn.training.running_statistics import averaged
from chainer_crossbn.training.updaters import as_input, batch_sums

# Images per batch, or fewer if these have more pixels.
_BATCHSIZE = 100
_PIXELS = 16 * 224 * 224


class GlobalEvaluator(extension.Extension):
    """Reports loss and accuracy of a model in test mode, each image counted once.

    Each rank evaluates a share, with running statistics that are averaged over the
    ranks (:func:`.running_statistics.averaged`). Reports
    ``NAME/main/loss`` (mean cross entropy) and ``NAME/main/accuracy``.

    Args:
        model (chainer.Link): From images to logits.
        sets (dict): From NAME to a pair of a uint8 array of images, shape (n, 3, h, w),
            or another argument of ``load``, and an int32 array of labels, shape (n,).
        comm: ChainerMN communicator.
        device: Chainer device.
        load (callable): As for :class:`~chainer_crossbn.training.GlobalUpdater`.
        progress (Progress or None): Receives this rank's progress.

    Attributes:
        seconds (float): Time spent so far.
    """

    trigger = 1, "epoch"
    priority = extension.PRIORITY_WRITER

    def __init__(
        self,
        model,
        sets,
        comm,
        device,
        load=loading.in_memory,
        progress: Optional[Progress] = None,
    ):
        self._model = model
        self._sets = sets
        self._comm = comm
        self._device = device
        self._load = load
        self._progress = progress or Progress()
        self.seconds = 0.0

    def __call__(self, trainer=None) -> dict[str, float]:
        started = time.perf_counter()
        self._progress.reach("the evaluation")
        model = averaged(self._model, self._comm)
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            local = [self._sums(model, *pair) for pair in self._sets.values()]
        self._progress.reach("the sums of the evaluation")
        total = self._comm.allreduce(numpy.array(local))
        observation = {}
        for name, (loss, correct, n) in zip(self._sets, total):
            observation[f"{name}/main/loss"] = float(loss / n)
            observation[f"{name}/main/accuracy"] = float(correct / n)
        chainer.report(observation)
        self.seconds += time.perf_counter() - started
        return observation

    def _sums(self, model, images, labels):
        share = slice(self._comm.rank, None, self._comm.size)
        images, labels = images[share], labels[share]
        sums = numpy.zeros(3)
        height, width = images.shape[2:]
        size = max(1, min(_BATCHSIZE, _PIXELS // (height * width)))
        requests = loading.in_order(len(images), size)
        for request, batch in zip(requests, self._load(images, requests)):
            t = self._device.send(labels[request.indices])
            logits = model(as_input(batch, self._device))
            loss = F.softmax_cross_entropy(logits, t)
            sums += batch_sums(logits, loss, t)
            self._progress.keep_alive()
        return sums
