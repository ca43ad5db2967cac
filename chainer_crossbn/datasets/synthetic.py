"""A data set without files: shapes with textures, drawn from a seed."""

from __future__ import annotations

import hashlib

import numpy

from chainer_crossbn.datasets.images import DatasetError, ImageDataset, from_arrays
from chainer_crossbn.datasets.lazy import LazyImages

NAME = "synthetic"

_SHAPES = ("disk", "ring", "square", "triangle", "cross")
_TEXTURES = ("plain", "striped")
_N_CLASS = len(_SHAPES) * len(_TEXTURES)

_TRAIN_SIZE, _TEST_SIZE = 10_000, 2_000
_SIZE_LIMIT = 1_000_000
_SEED_LIMIT = 1 << 32

# Lengths below are for images of this side. For others, they are scaled.
SIDE = 32
_SIDE_LIMIT = 1024
_BLOCK = 25 * _N_CLASS  # images that are drawn at a time
_SHIFT = 12  # largest distance of a shape from the centre, half pixels
_RADII = (16, 25)  # half pixels
_STRIPE = 6  # half pixels
_DARK, _BRIGHT = (0, 120), (136, 256)  # per channel
_SHADE = 2  # half steps of brightness per half pixel
_NOISE = 32  # steps of brightness

# 5 * (cos, sin) of the angles of shapes and stripes, in integers.
_ROTATIONS = numpy.array(
    [(5, 0), (4, 3), (3, 4), (0, 5), (-3, 4), (-4, 3)], numpy.int32
)


def load(
    train_size: int | None = None,
    test_size: int | None = None,
    seed: int = 0,
    side: int = SIDE,
) -> ImageDataset:
    """Draw the images.

    A class is one of five shapes (disk, ring, square, triangle, cross) with one of two
    textures (plain, striped), in a bright colour on a dark one. Position, size, angle,
    colours, the shade over the image and noise are random and independent of the class.
    A linear classifier, which sees only the mean brightness of each pixel, is therefore
    right for about a third of the test images.

    All numbers come from :class:`numpy.random.RandomState`, whose streams are frozen,
    and all arithmetic is on integers: the images are identical on every machine. Each
    image depends only on the seed and its own number. A smaller set is therefore the
    beginning of a larger one, and the first 10 * k images have every class k times.

    Images with another side than 32 pixels are drawn on demand. Shapes and stripes grow
    with the image, noise is per pixel, and labels are those of the small images. The
    checksum is that of the parameters, and of the first image of each part.

    Args:
        train_size (int or None): Number of training images. The default is 10,000.
        test_size (int or None): Number of test images. The default is 2,000.
        seed (int): From 0 to 2**32 - 1.
        side (int): Height and width of the images, at most 1024 pixels.

    Returns:
        ImageDataset: With 10 classes.

    Raises:
        DatasetError: If a size or the seed is out of range.
    """
    if not 0 <= seed < _SEED_LIMIT:
        raise DatasetError(f"the seed is {seed}; choose from 0 to {_SEED_LIMIT - 1}")
    train_size = _check_size(train_size, _TRAIN_SIZE, "--train-size")
    test_size = _check_size(test_size, _TEST_SIZE, "--test-size")
    if side == SIDE:
        return from_arrays(
            NAME, _N_CLASS, _draw(seed, 0, train_size), _draw(seed, 1, test_size)
        )
    if not 1 <= side <= _SIDE_LIMIT:
        raise DatasetError(
            f"--image-size: {side} pixels requested; for --dataset {NAME}, choose "
            f"from 1 to {_SIDE_LIMIT}"
        )
    checksum = hashlib.sha256()
    parts = []
    for part, size in enumerate((train_size, test_size)):
        labels = _draw_labels(seed, part, size)
        images = DrawnImages(seed, part, labels, side)
        first = numpy.empty((3, side, side), numpy.uint8)
        images.make(0, None, first)
        checksum.update(b"%d %d %d %d\n" % (seed, part, size, side))
        checksum.update(first.data)
        parts.append((images, labels))
    (train_images, train_labels), (test_images, test_labels) = parts
    return ImageDataset(
        name=NAME,
        n_class=_N_CLASS,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        checksum=checksum.hexdigest(),
    )


class DrawnImages(LazyImages):
    """Images that are drawn on demand, each from its own seed.

    Args:
        seed (int): Seed of the data set.
        part (int): 0 for training, 1 for testing.
        labels (numpy.ndarray): Classes of the images, int32 of shape (N,).
        side (int): Height and width in pixels.
    """

    def __init__(self, seed: int, part: int, labels: numpy.ndarray, side: int) -> None:
        super().__init__(len(labels), side)
        self._seed = seed, part
        self._labels = labels

    def _make(self, number, random, out):
        random = numpy.random.RandomState([*self._seed, number, self._side])
        out[...] = _draw_block(self._labels[number, None], random, self._side)[0]


def _check_size(size, default, flag):
    if size is None:
        return default
    if not 1 <= size <= _SIZE_LIMIT:
        raise DatasetError(
            f"{flag}: {size} images requested; choose from 1 to {_SIZE_LIMIT}"
        )
    return size


def _draw(seed, part, size):
    """Return the images and labels of a part."""
    images = numpy.empty((size, 3, SIDE, SIDE), numpy.uint8)
    labels = numpy.empty(size, numpy.int32)
    for block, start in enumerate(range(0, size, _BLOCK)):
        random = numpy.random.RandomState([seed, part, block])
        block_labels = _draw_block_labels(random)
        n = min(_BLOCK, size - start)
        labels[start : start + n] = block_labels[:n]
        images[start : start + n] = _draw_block(block_labels, random, SIDE)[:n]
    return images, labels


def _draw_labels(seed, part, size):
    """Return the labels of a part, without drawing its images."""
    blocks = [
        _draw_block_labels(numpy.random.RandomState([seed, part, block]))
        for block in range(-(-size // _BLOCK))
    ]
    return numpy.concatenate(blocks)[:size]


def _draw_block_labels(random):
    """Return the labels of a block. Each ten of them have every class once."""
    keys = random.randint(0, 1 << 30, (_BLOCK // _N_CLASS, _N_CLASS), numpy.int32)
    return numpy.argsort(keys, axis=1, kind="stable").ravel().astype(numpy.int32)


def _draw_block(labels, random, side):
    """Return an image for each label, uint8 of shape (N, 3, side, side)."""

    def integers(low, high, *shape):
        """Return random integers below ``high``, which broadcast to the pixels."""
        size = (len(labels), *shape, 1, 1)
        return random.randint(low, high, size, numpy.int32)

    def scaled(length):
        """Return a length, scaled to the side of the images."""
        return length * side // SIDE

    # In half pixels, the centre of the image is an integer.
    across = numpy.arange(1 - side, side, 2, dtype=numpy.int32)
    down = across[:, None]
    x = across - scaled(integers(-_SHIFT, _SHIFT + 1))
    y = down - scaled(integers(-_SHIFT, _SHIFT + 1))
    u, v = _rotated(x, y, integers(0, len(_ROTATIONS)))
    shape, striped = numpy.divmod(labels, len(_TEXTURES))
    inside = _inside(shape, u, v, scaled(5 * integers(*_RADII)))
    along, _ = _rotated(x, y, integers(0, len(_ROTATIONS)))
    start = scaled(integers(0, 10 * _STRIPE))
    stripe = (along + start) // max(1, scaled(5 * _STRIPE)) % 2
    stripe *= striped[:, None, None]

    image = numpy.where(stripe[:, None], integers(*_DARK, 3), integers(*_BRIGHT, 3))
    image = numpy.where(inside[:, None], image, integers(*_DARK, 3))
    slopes = integers(-_SHADE, _SHADE + 1), integers(-_SHADE, _SHADE + 1)
    shade = slopes[0] * across + slopes[1] * down
    image += (shade * SIDE // (2 * side))[:, None]
    noise = numpy.frombuffer(random.bytes(image.size), numpy.uint8) % _NOISE
    image += noise.reshape(image.shape)
    return numpy.clip(image - _NOISE // 2, 0, 255).astype(numpy.uint8)


def _rotated(x, y, angle):
    """Return coordinates along rotated axes, times 5."""
    cos, sin = numpy.moveaxis(_ROTATIONS[angle], -1, 0)
    return cos * x + sin * y, cos * y - sin * x


def _inside(shape, u, v, radius):
    """Return which pixels are in the shape, bool of the shape of the coordinates."""
    inside = numpy.empty(u.shape, bool)
    for number, function in enumerate((_disk, _ring, _square, _triangle, _cross)):
        chosen = shape == number
        inside[chosen] = function(u[chosen], v[chosen], radius[chosen])
    return inside


def _disk(u, v, radius):
    return u * u + v * v < radius * radius


def _ring(u, v, radius):
    return _disk(u, v, radius) & ~_disk(2 * u, 2 * v, radius)


def _square(u, v, radius):
    return 8 * numpy.maximum(abs(u), abs(v)) < 7 * radius


def _triangle(u, v, radius):
    return (2 * v < radius) & (7 * abs(u) < 4 * (v + radius))


def _cross(u, v, radius):
    longer, shorter = numpy.maximum(abs(u), abs(v)), numpy.minimum(abs(u), abs(v))
    return (longer < radius) & (3 * shorter < radius)
