"""The default learning rate, and how learning rates scale with the global batch."""

import math
from collections.abc import Mapping
from typing import Callable

REFERENCE_GLOBAL_BATCH = 512
DEFAULT_BASE_RATE = 0.01
DEFAULT_SCALING = "sqrt"

# How a rate scales with the global batch, relative to the reference.
SCALINGS: Mapping[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "sqrt": math.sqrt,
    "linear": float,
}


def scaled_rate(base_rate: float, global_batch: int, scaling: str) -> float:
    """Return the learning rate at a global batch size.

    Args:
        base_rate (float): Learning rate at a global batch of 512 images.
        global_batch (int): Images per iteration, over all ranks.
        scaling (str): A name of :data:`SCALINGS`.
    """
    return base_rate * SCALINGS[scaling](global_batch / REFERENCE_GLOBAL_BATCH)


def default_rate(global_batch: int) -> float:
    """Return the default learning rate at a global batch size.

    It is 0.01 at 512 images, and scales with the square root (Krizhevsky, "One weird
    trick for parallelizing convolutional neural networks", 2014). It is the same for
    all networks.
    """
    return scaled_rate(DEFAULT_BASE_RATE, global_batch, DEFAULT_SCALING)
