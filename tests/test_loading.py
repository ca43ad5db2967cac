"""Mini-batches that are prepared in advance."""

import itertools
import threading
import time

import numpy as np
import pytest

from chainer_crossbn import datasets
from chainer_crossbn.datasets import LazyImages
from chainer_crossbn.datasets.loading import Loader, Request, in_memory, in_order


class NumberImages(LazyImages):
    """Images with their numbers as pixels. Records which have been made."""

    def __init__(self, n, side=4):
        super().__init__(n, side)
        self.lock = threading.Lock()
        self.made = []

    def _make(self, number, random, out):
        time.sleep(0.001 * (number % 3))
        out[...] = number if random is None else random.randint(256)
        with self.lock:
            self.made.append(number)


@pytest.fixture
def loader(request):
    loader = Loader(getattr(request, "param", 3))
    yield loader
    loader.close()


def test_in_memory():
    images = np.arange(10 * 3 * 2 * 2, dtype=np.uint8).reshape(10, 3, 2, 2)
    requests = [Request(np.array([7, 2])), Request(np.array([0]))]
    batches = list(in_memory(images, requests))
    assert (batches[0] == images[[7, 2]]).all() and (batches[1] == images[[0]]).all()


def test_in_order():
    requests = in_order(7, 3)
    assert [r.indices.tolist() for r in requests] == [[0, 1, 2], [3, 4, 5], [6]]
    assert all(r.draw is None for r in requests)


@pytest.mark.parametrize("loader", [1, 2, 7], indirect=True)
def test_results_do_not_depend_on_the_number_of_threads(loader):
    requests = [
        Request(np.random.RandomState(i).permutation(50)[: 1 + i % 5], (3, i))
        for i in range(20)
    ]
    expected = [
        [np.random.RandomState([*draw, i]).randint(256) for i in indices]
        for indices, draw in requests
    ]
    batches = list(loader(NumberImages(50), requests))
    assert [b[:, 0, 0, 0].tolist() for b in batches] == expected
    assert all(b.dtype == np.uint8 and b.shape[1:] == (3, 4, 4) for b in batches)


@pytest.mark.parametrize(
    "loader,size,ahead", [(1, 8, 2), (3, 1, 6), (8, 2, 8)], indirect=["loader"]
)
def test_number_of_batches_in_advance(loader, size, ahead):
    images = NumberImages(10**6)
    starts = itertools.count(0, size)
    batches = loader(images, (Request(np.arange(s, s + size)) for s in starts))
    for count in range(1, 6):
        next(batches)
        limit = time.monotonic() + 10
        while len(images.made) < (count + ahead) * size and time.monotonic() < limit:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(images.made) == (count + ahead) * size


def test_errors_are_raised_in_place_of_their_batch(loader):
    class Broken(NumberImages):
        def _make(self, number, random, out):
            if number >= 4:
                raise datasets.DatasetError(f"image {number}")
            super()._make(number, random, out)

    batches = loader(Broken(8), in_order(8, 2))
    assert next(batches)[0, 0, 0, 0] == 0
    time.sleep(0.05)
    assert next(batches)[0, 0, 0, 0] == 2
    with pytest.raises(datasets.DatasetError, match="image 4"):
        next(batches)
