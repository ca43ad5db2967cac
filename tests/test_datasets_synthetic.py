"""The synthetic data set, and balanced subsets."""

import numpy
import pytest

from chainer_crossbn import datasets
from chainer_crossbn.datasets import synthetic

# Of seed 0 and the default sizes, with NumPy 1.24 to 2.5 and Python 3.9 to 3.13.
CHECKSUM = "9e32818f1975ed00d9f2211bee37810aac58e0601cd50a65591d9f9ec62680ba"


@pytest.fixture(scope="module")
def data():
    return datasets.load("synthetic")


def test_arrays(data):
    assert data.name == "synthetic"
    assert data.n_class == 10
    assert data.notes == ()
    for images, labels, n in (
        (data.train_images, data.train_labels, 10000),
        (data.test_images, data.test_labels, 2000),
    ):
        assert images.shape == (n, 3, 32, 32)
        assert images.dtype == numpy.uint8
        assert images.flags.c_contiguous
        assert labels.shape == (n,)
        assert labels.dtype == numpy.int32
        assert (numpy.bincount(labels) == n // 10).all()


def test_images_are_identical_on_every_machine(data):
    assert data.checksum == CHECKSUM


def test_images_differ(data):
    images = numpy.concatenate([data.train_images, data.test_images])
    assert len({image.tobytes() for image in images}) == 12000


def test_smaller_set_is_the_beginning_of_a_larger_one(data):
    part = datasets.load("synthetic", train_size=303, test_size=7)
    numpy.testing.assert_array_equal(part.train_images, data.train_images[:303])
    numpy.testing.assert_array_equal(part.train_labels, data.train_labels[:303])
    numpy.testing.assert_array_equal(part.test_images, data.test_images[:7])
    counts = numpy.bincount(part.train_labels)
    assert counts.max() - counts.min() == 1
    assert part.checksum != data.checksum


def test_seed(data):
    other = datasets.load("synthetic", train_size=100, test_size=100, seed=1)
    assert (other.train_images != data.train_images[:100]).mean() > 0.9


def test_linear_classifier_is_not_enough(data):
    def features(images):
        pixels = images.reshape(len(images), -1).astype(numpy.float32) / 255 - 0.5
        return numpy.pad(pixels, ((0, 0), (0, 1)), constant_values=1)

    # Ridge regression on the pixels; the best of several strengths.
    x, x_test = features(data.train_images), features(data.test_images)
    target = numpy.eye(10, dtype=numpy.float32)[data.train_labels]
    squares, products = x.T @ x, x.T @ target
    for strength in (10, 100, 1000):
        ridge = strength * numpy.eye(len(squares), dtype=numpy.float32)
        weights = numpy.linalg.solve(squares + ridge, products)
        predicted = (x_test @ weights).argmax(axis=1)
        assert (predicted == data.test_labels).mean() < 0.6


@pytest.mark.parametrize("size", [0, -1, 10**30])
@pytest.mark.parametrize("part", ["train", "test"])
def test_size_out_of_range(part, size):
    with pytest.raises(datasets.DatasetError, match=f"^--{part}-size: {size} images"):
        datasets.load("synthetic", **{f"{part}_size": size})


def make(images, indices):
    out = numpy.empty((len(indices), *images.shape[1:]), numpy.uint8)
    for index, image in zip(indices, out):
        images.make(index, (5, 6), image)
    return out


def test_larger_images_are_drawn_on_demand():
    data = datasets.load("synthetic", train_size=1_000_000, test_size=30, side=256)
    small = datasets.load("synthetic", train_size=500, test_size=30)
    assert data.train_images.shape == (1_000_000, 3, 256, 256)
    numpy.testing.assert_array_equal(data.train_labels[:500], small.train_labels)
    numpy.testing.assert_array_equal(data.test_labels, small.test_labels)
    some = make(data.train_images, [0, 7, 999_999])
    assert len({image.tobytes() for image in some}) == 3
    numpy.testing.assert_array_equal(make(data.train_images, [7]), some[1:2])
    part = datasets.load("synthetic", train_size=8, test_size=30, side=256)
    numpy.testing.assert_array_equal(make(part.train_images, [7]), some[1:2])
    assert (make(part.test_images, [7]) != some[1]).mean() > 0.9
    assert len({d.checksum for d in (data, small, part)}) == 3


def test_larger_images_are_like_small_ones():
    labels = numpy.arange(200) % 10
    small, large, other = (
        synthetic._draw_block(labels, numpy.random.RandomState(seed), side)
        for seed, side in ((0, 32), (0, 128), (1, 32))
    )
    reduced = large.reshape(200, 3, 32, 4, 32, 4).mean(axis=(3, 5))
    # Noise has up to 16 steps of brightness, and averaging smooths edges.
    assert abs(reduced - small).mean() < 12
    assert abs(reduced - other).mean() > 40


@pytest.mark.parametrize("side", [0, 1025])
def test_side_out_of_range(side):
    with pytest.raises(datasets.DatasetError, match="choose from 1 to 1024"):
        datasets.synthetic.load(side=side)


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_seed_out_of_range(seed):
    with pytest.raises(datasets.DatasetError, match="choose from 0 to"):
        datasets.load("synthetic", seed=seed)


def test_reads_no_files(tmp_path):
    with pytest.raises(datasets.DatasetError, match="leave it out"):
        datasets.load("synthetic", tmp_path)


def test_unknown_name():
    with pytest.raises(datasets.DatasetError, match="cifar100, folder, imagenet, syn"):
        datasets.load("mnist")


@pytest.mark.parametrize("size", [1, 9, 10, 25, 99])
def test_take_balanced(size):
    labels = numpy.random.RandomState(0).permutation(numpy.arange(100) % 10)
    chosen = datasets.take_balanced(labels, size, 10)
    assert len(chosen) == size
    assert (numpy.diff(chosen) > 0).all()
    counts = numpy.bincount(labels[chosen], minlength=10)
    assert counts.max() - counts.min() <= 1
    assert set(chosen) <= set(datasets.take_balanced(labels, size + 1, 10))


def test_take_balanced_until_a_class_runs_out():
    labels = numpy.array([0, 0, 0, 0, 1, 2, 2, 2])
    assert list(datasets.take_balanced(labels, 6, 3)) == [0, 1, 2, 4, 5, 6]
    assert list(datasets.take_balanced(labels, 8, 3)) == list(range(8))


@pytest.mark.parametrize("size", [0, -5, 11])
def test_take_balanced_out_of_range(size):
    with pytest.raises(datasets.DatasetError, match="choose from 1 to 10"):
        datasets.take_balanced(numpy.arange(10), size, 10)
