"""Mini-batches of images, made ahead of their use where they are not in memory."""

import collections
import concurrent.futures
import itertools
from typing import NamedTuple, Optional

import numpy

# Batches that are made ahead, at least.
_AHEAD = 2


class Request(NamedTuple):
    """A mini-batch that will be wanted.

    Attributes:
        indices (numpy.ndarray): Its images, int64 of shape (n,).
        draw (tuple of int or None): What its random crops and flips depend on, besides
            the indices; None: there are none.
    """

    indices: numpy.ndarray
    draw: Optional[tuple] = None


def in_memory(images, requests):
    """Yield mini-batches of an array.

    Args:
        images (numpy.ndarray): uint8, shape (N, 3, h, w).
        requests (iterable of Request): May have no end.

    Yields:
        numpy.ndarray: uint8, shape (n, 3, h, w).
    """
    for request in requests:
        yield images[request.indices]


def in_order(n, size):
    """Return requests for all of ``n`` images, ``size`` at a time, without crops."""
    starts = range(0, n, size)
    return [Request(numpy.arange(start, min(start + size, n))) for start in starts]


class Loader:
    """Makes mini-batches in threads, some of them ahead.

    What comes out depends on the requests alone, not on the number of threads. In
    memory are, for each call that has not come to its end, the batch that was asked
    for last, and ahead of it two batches, or more where these are smaller than
    threads need: up to twice as many images as threads, rounded up to batches.

    Args:
        threads (int): Number of threads.
    """

    def __init__(self, threads):
        self._threads = threads
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "images")

    def __call__(self, images, requests):
        """Yield mini-batches, as :func:`in_memory` does.

        Args:
            images (numpy.ndarray or LazyImages): Shape (N, 3, h, w).
            requests (iterable of Request): May have no end.

        Yields:
            numpy.ndarray: uint8, shape (n, 3, h, w).

        Raises:
            DatasetError: When a batch is due of which an image can't be made.
        """
        if isinstance(images, numpy.ndarray):
            yield from in_memory(images, requests)
            return
        requests = iter(requests)
        pending = collections.deque()
        try:
            for request in requests:
                pending.append(self._begin(images, request))
                most = max(_AHEAD, -(-2 * self._threads // len(request.indices)))
                missing = max(0, most + 1 - len(pending))
                for following in itertools.islice(requests, missing):
                    pending.append(self._begin(images, following))
                yield _finished(pending.popleft())
            while pending:
                yield _finished(pending.popleft())
        finally:
            for _, tasks in pending:
                for task in tasks:
                    task.cancel()

    def _begin(self, images, request):
        batch = numpy.empty((len(request.indices), *images.shape[1:]), numpy.uint8)
        tasks = [
            self._pool.submit(images.make, index, request.draw, out)
            for index, out in zip(request.indices.tolist(), batch)
        ]
        return batch, tasks

    def close(self):
        """End the threads, and make no more."""
        self._pool.shutdown(cancel_futures=True)


def _finished(begun):
    batch, tasks = begun
    for task in tasks:
        task.result()
    return batch
