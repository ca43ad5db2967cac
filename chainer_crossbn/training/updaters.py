"""One training step over all ranks."""

import contextlib
import math
import time
from typing import Optional

import chainer
import chainer.functions as F
import numpy
from chainer.training.updaters import StandardUpdater

from chainer_crossbn.datasets import loading
from chainer_crossbn.training import not_finite
from chainer_crossbn.training.progress import Progress


def as_input(images, device: chainer.backend.Device):
    """Return uint8 images as floats in [0, 1] on a device.

    Args:
        images: uint8 array of shape (n, 3, h, w).
        device: Chainer device.

    Returns:
        Array of the same shape and of Chainer's default dtype (float32).
    """
    dtype = chainer.get_dtype(map_mixed16=numpy.float16)
    return device.send(images).astype(dtype) / dtype.type(255)


def batch_sums(logits, loss, labels) -> numpy.ndarray:
    """Return the statistics of a batch that are summed over batches and ranks.

    Args:
        logits (Variable): Shape (n, n_class).
        loss (Variable): The mean loss, a scalar.
        labels: int32 array of shape (n,), on the same device.

    Returns:
        float64 array of shape (3,): sum of losses, number of correct images, n.
    """
    n = len(labels)
    correct = (logits.array.argmax(axis=1) == labels).sum()
    return numpy.array([float(loss.array) * n, float(correct), n])


class GlobalUpdater(StandardUpdater):
    """Makes steps that equal those of one rank with the whole global batch.

    The multi-node optimizer averages the gradients of the processes, so each process
    weights its mean loss by its share: n * P / N for n of N images on P processes.

    Args:
        iterator: :class:`~chainer_crossbn.training.iterators.ShareIterator`.
        optimizer: Multi-node optimizer, set up and primed.
        images: uint8 array of shape (n, 3, h, w), or another argument of ``load``.
        labels: int32 array of shape (n,).
        comm: ChainerMN communicator.
        device: Chainer device.
        load (callable): Makes mini-batches of images from the requests of the iterator:
            :func:`~chainer_crossbn.datasets.loading.in_memory` or a
            :class:`~chainer_crossbn.datasets.loading.Loader`.
        dropout (RankDropout or None): The dropout function of the model, whose random
            numbers are part of snapshots.
        progress (Progress or None): Receives this rank's progress.
        context (context manager or None): Steps are taken in it.

    Attributes:
        dropout (RankDropout or None): As given.
        sums: float64 array of shape (3,): this rank's sum of losses, number of correct
            images and number of images since the last :meth:`take_sums`.
        train_time (float): Seconds spent in steps so far.
        phases (tuple): When the parts of the last step began, and when it ended, in
            seconds of :func:`time.perf_counter`: data, forward, backward, update (with
            the all-reduce of the gradients) and the sums.
        not_finite (str or None): Where the loss was first not finite: the iteration and
            the layer.
    """

    def __init__(
        self,
        iterator,
        optimizer,
        images,
        labels,
        comm,
        device,
        load=loading.in_memory,
        dropout=None,
        progress: Optional[Progress] = None,
        context: Optional[contextlib.AbstractContextManager] = None,
    ):
        super().__init__(iterator, optimizer, device=device)
        self.dropout = dropout
        self.sums = numpy.zeros(3)
        self.train_time = 0.0
        self._context = context or contextlib.nullcontext()
        self.phases = (0.0,) * 6
        self.not_finite = None
        self._images = images
        self._labels = labels
        self._comm = comm
        self._load = load
        self._progress = progress or Progress()
        self._batches = None

    def update_core(self):
        # A loss that is not finite is reported once, by its iteration and layer.
        with self._context, numpy.errstate(all="ignore"):
            self._make_step()

    def _make_step(self):
        started = time.perf_counter()
        number = self.iteration + 1
        self._progress.reach(f"the images of iteration {number}")
        iterator = self.get_iterator("main")
        if self._batches is None:
            # Here, as a resume moves the iterator.
            self._batches = self._load(self._images, iterator.coming())
        indices, global_size = next(iterator)
        optimizer = self.get_optimizer("main")
        model = optimizer.target
        n = len(indices)
        labels = self.device.send(self._labels[indices])
        x = as_input(next(self._batches), self.device)
        loaded = time.perf_counter()
        self._progress.reach(f"the forward and backward pass of iteration {number}")
        logits = model(x)
        loss = F.softmax_cross_entropy(logits, labels)
        computed = time.perf_counter()
        model.cleargrads()
        (loss * (n * self._comm.size / global_size)).backward()
        for parameter in model.params():
            # ChainerMN's naive communicator drops the sum of other gradients.
            if parameter.grad is not None and not parameter.grad.flags.c_contiguous:
                parameter.grad = parameter.xp.ascontiguousarray(parameter.grad)
        differentiated = time.perf_counter()
        self._progress.reach(f"the gradients of iteration {number}")
        optimizer.update()
        updated = time.perf_counter()
        sums = batch_sums(logits, loss, labels)
        self.sums += sums
        if self.not_finite is None and not math.isfinite(sums[0]):
            layer = not_finite.origin(loss, model)
            self.not_finite = f"in iteration {number}, first behind {layer}"
        ended = time.perf_counter()
        self.train_time += ended - started
        self.phases = (started, loaded, computed, differentiated, updated, ended)

    def take_sums(self) -> numpy.ndarray:
        """Return :attr:`sums` and reset them."""
        sums, self.sums = self.sums, numpy.zeros(3)
        return sums

    def serialize(self, serializer):
        super().serialize(serializer)
        self.sums = serializer("sums", self.sums)
        self.train_time = serializer("train_time", self.train_time)
        if isinstance(serializer, chainer.serializer.Deserializer):
            self._batches = None


def prime(optimizer, comm) -> None:
    """Make the ranks' models equal, so that the optimizer's first update is a step.

    ChainerMN's multi-node optimizer only broadcasts parameters in its first update.
    This broadcasts rank 0's parameters and persistent values (running statistics).

    Args:
        optimizer: Multi-node optimizer, set up with an initialized model.
        comm: ChainerMN communicator.
    """
    model = optimizer.target
    # In place, one by one, as they may fill half of the memory.
    comm.bcast_data(model)
    values = comm.bcast_obj(persistent_values(model) if comm.rank == 0 else None)
    chainer.serializers.NpzDeserializer(values, strict=False).load(model)
    optimizer.is_changed(model)


def persistent_values(model: chainer.Link) -> dict[str, numpy.ndarray]:
    """Return the persistent values of a model, such as running statistics.

    Args:
        model (chainer.Link): Any model.

    Returns:
        dict: From the name that serializers use to an array on the CPU.
    """
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(model)
    parameters = {name[1:] for name, _ in model.namedparams()}
    return {k: v for k, v in serializer.target.items() if k not in parameters}
