"""Random shifts and flips of training images."""

import json

import numpy as np
import pytest
from mpi import TRAIN, mpiexec

from chainer_crossbn.datasets.loading import Loader, Request, in_memory, in_order

DRAW = 3, 1
IMAGES = np.random.RandomState(0).randint(1, 256, (40, 3, 32, 32)).astype(np.uint8)


def augmented(indices, draw=DRAW):
    (batch,) = in_memory(IMAGES, [Request(np.array(indices), draw)], augmented=True)
    return batch


def crops(image):
    """Yield all crops that the padded image has, and their mirror images."""
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)))
    for top in range(9):
        for left in range(9):
            crop = padded[:, top : top + 32, left : left + 32]
            yield from ((top, left, False, crop), (top, left, True, crop[..., ::-1]))


def test_images_are_crops_of_the_padded_images():
    batch = augmented(range(40))
    assert batch.dtype == np.uint8 and batch.shape == IMAGES.shape
    drawn = []
    for image, result in zip(IMAGES, batch):
        (match,) = [crop[:3] for crop in crops(image) if (crop[3] == result).all()]
        drawn.append(match)
    tops, lefts, flips = map(set, zip(*drawn))
    assert len(tops) > 5 and len(lefts) > 5 and flips == {False, True}


def test_random_numbers_depend_on_draw_and_index_alone():
    whole = augmented(range(40))
    np.testing.assert_array_equal(augmented([30, 2, 7]), whole[[30, 2, 7]])
    assert (augmented(range(40), (3, 2)) != whole).any()
    assert (augmented(range(40), (4, 1)) != whole).any()


@pytest.mark.parametrize("threads", [1, 3])
def test_loader(threads):
    loader = Loader(threads, augmented=True)
    (batch,) = loader(IMAGES, [Request(np.arange(40), DRAW)])
    np.testing.assert_array_equal(batch, augmented(range(40)))
    (batch,) = loader(IMAGES, in_order(40, 40))
    np.testing.assert_array_equal(batch, IMAGES)
    loader.close()


def test_log_of_processes_equals_that_of_virtual_ranks(tmp_path):
    flags = (
        *("--dataset", "synthetic", "--train-size", 30, "--test-size", 10, "--augment"),
        *("--epoch", 2, "--batchsize", 4, "--width", 2, "--fc-units", 4, "--cpu"),
        *("--threads", 1, "--out", tmp_path),
    )
    env = {"CHAINER_DTYPE": "float64"}
    for n, more in ((2, ()), (1, ("--virtual-ranks", 2))):
        name = f"{n}-{len(more)}"
        done = mpiexec(n, TRAIN, *flags, *more, "--name", name, env=env)
        assert done.returncode == 0, done.stderr
    logs = [
        json.loads((tmp_path / name / "log").read_text()) for name in ("2-0", "1-2")
    ]
    for entry, other in zip(*logs):
        for key, value in entry.items():
            if key.startswith(("train/", "validation/", "main/")):
                assert other[key] == pytest.approx(value, rel=1e-9)
