"""Evaluation by all ranks together."""

import time

import chainer
import chainer.functions as F
import numpy
from chainer.training import extension

from chainer_crossbn.running_statistics import averaged, of_rank_zero
from chainer_crossbn.updaters import as_input, batch_sums

_BATCHSIZE = 100


class GlobalEvaluator(extension.Extension):
    """Reports loss and accuracy of a model in test mode, each image counted once.

    The ranks evaluate one share each, with running statistics that are averaged over
    the ranks (:func:`chainer_crossbn.running_statistics.averaged`). Reports
    ``NAME/main/loss`` (mean cross entropy) and ``NAME/main/accuracy``.

    Where the ranks' running statistics differ, it reports ``NAME/rank0/...``, with
    those of rank 0, and ``NAME/within/...``, with the mean of the ranks' variances as
    variance, as well.

    Args:
        model (chainer.Link): From images to logits.
        sets (dict): From NAME to a pair of a uint8 array of images, shape (n, 3, h, w),
            and an int32 array of labels, shape (n,).
        comm: ChainerMN communicator.
        device: Chainer device.
        compared (tuple of str): Names of the sets that ``rank0`` and ``within`` are
            reported of.

    Attributes:
        seconds (float): Time spent so far.
    """

    trigger = 1, "epoch"
    priority = extension.PRIORITY_WRITER

    def __init__(self, model, sets, comm, device, compared=()):
        self._model = model
        self._sets = sets
        self._comm = comm
        self._device = device
        self._compared = compared
        self.seconds = 0.0

    def __call__(self, trainer=None):
        started = time.perf_counter()
        model = averaged(self._model, self._comm)
        evaluated = {f"{name}/main": (model, name) for name in self._sets}
        if self._compared and model is not self._model:
            rank0 = of_rank_zero(self._model, self._comm)
            within = averaged(self._model, self._comm, between=False)
            for name in self._compared:
                evaluated[f"{name}/rank0"] = rank0, name
                evaluated[f"{name}/within"] = within, name
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            local = [
                self._sums(model, *self._sets[name])
                for model, name in evaluated.values()
            ]
        total = self._comm.allreduce(numpy.array(local))
        observation = {}
        for key, (loss, correct, n) in zip(evaluated, total):
            observation[f"{key}/loss"] = float(loss / n)
            observation[f"{key}/accuracy"] = float(correct / n)
        chainer.report(observation)
        self.seconds += time.perf_counter() - started
        return observation

    def _sums(self, model, images, labels):
        share = slice(self._comm.rank, None, self._comm.size)
        images, labels = images[share], labels[share]
        sums = numpy.zeros(3)
        for start in range(0, len(images), _BATCHSIZE):
            batch = slice(start, start + _BATCHSIZE)
            t = self._device.send(labels[batch])
            logits = model(as_input(images[batch], self._device))
            loss = F.softmax_cross_entropy(logits, t)
            sums += batch_sums(logits, loss, t)
        return sums
