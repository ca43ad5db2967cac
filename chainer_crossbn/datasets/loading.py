"""Mini-batches of images; those that are not in memory are prepared in advance."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import NamedTuple

import numpy

from chainer_crossbn.datasets import augmentation
from chainer_crossbn.datasets.lazy import LazyImages

# Minimum number of mini-batches that are prepared in advance.
_AHEAD = 2


class Request(NamedTuple):
    """A mini-batch to be made.

    Attributes:
        indices (numpy.ndarray): Indices of its images, int64 of shape (n,).
        draw (tuple of int or None): Seed, besides the indices, of random crops and
            flips. None makes the images without these.
    """

    indices: numpy.ndarray
    draw: tuple[int, ...] | None = None


def in_memory(
    images: numpy.ndarray, requests: Iterable[Request], augmented: bool = False
) -> Iterator[numpy.ndarray]:
    """Yield mini-batches of an array.

    Args:
        images (numpy.ndarray): uint8, shape (N, 3, h, w).
        requests (iterable of Request): May be infinite.
        augmented (bool): Whether images are shifted and flipped at random, see
            :func:`.augmentation.augment`, where a request has a seed.

    Yields:
        numpy.ndarray: uint8, shape (n, 3, h, w).
    """
    for request in requests:
        yield _finished(images[request.indices], request, augmented, len(images))


def _finished(batch, request, augmented, size):
    """Return a mini-batch as requested."""
    if not augmented or request.draw is None:
        return batch
    return augmentation.augment(batch, request.indices, request.draw, size)


def in_order(n: int, size: int) -> list[Request]:
    """Return requests for ``n`` images in mini-batches of ``size``, without crops."""
    starts = range(0, n, size)
    return [Request(numpy.arange(start, min(start + size, n))) for start in starts]


class Loader:
    """Makes mini-batches in threads, some of them in advance.

    The results depend on the requests alone, not on the number of threads. For each
    call that is not exhausted, memory holds the latest mini-batch and the next two, or
    more if these have fewer than two images per thread.

    Args:
        threads (int): Number of threads.
        augmented (bool): As for :func:`in_memory`.
    """

    def __init__(self, threads: int, augmented: bool = False) -> None:
        self._threads = threads
        self._augmented = augmented
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "images")

    def __call__(
        self, images: numpy.ndarray | LazyImages, requests: Iterable[Request]
    ) -> Iterator[numpy.ndarray]:
        """Yield mini-batches, as :func:`in_memory` does.

        Args:
            images (numpy.ndarray or LazyImages): Shape (N, 3, h, w).
            requests (iterable of Request): May be infinite.

        Yields:
            numpy.ndarray: uint8, shape (n, 3, h, w).

        Raises:
            DatasetError: In place of a mini-batch with an image that can't be made.
        """
        if isinstance(images, numpy.ndarray):
            yield from in_memory(images, requests, self._augmented)
            return
        requests = iter(requests)
        pending: collections.deque[tuple[Request, numpy.ndarray, list[Future]]] = (
            collections.deque()
        )
        try:
            for request in requests:
                pending.append(self._submit(images, request))
                ahead = max(_AHEAD, -(-2 * self._threads // len(request.indices)))
                missing = max(0, ahead + 1 - len(pending))
                for following in itertools.islice(requests, missing):
                    pending.append(self._submit(images, following))
                yield self._result(images, *pending.popleft())
            while pending:
                yield self._result(images, *pending.popleft())
        finally:
            for _, _, tasks in pending:
                for task in tasks:
                    task.cancel()

    def _submit(self, images, request):
        """Return a request, the array of its images, and the tasks that fill it."""
        batch = numpy.empty((len(request.indices), *images.shape[1:]), numpy.uint8)
        tasks = [
            self._pool.submit(images.make, index, request.draw, out)
            for index, out in zip(request.indices.tolist(), batch)
        ]
        return request, batch, tasks

    def _result(self, images, request, batch, tasks):
        for task in tasks:
            task.result()
        return _finished(batch, request, self._augmented, len(images))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)
