"""Functions: normalization over all ranks, and what is fast on CPUs."""

from chainer_crossbn.functions.convolution_2d import convolution_2d
from chainer_crossbn.functions.cross_batch_normalization import (
    cross_batch_normalization,
)
from chainer_crossbn.functions.linear import linear
from chainer_crossbn.functions.max_pooling_2d import max_pooling_2d
from chainer_crossbn.functions.recompute import recompute
from chainer_crossbn.functions.subsample import subsample_and_widen

__all__ = [
    "convolution_2d",
    "cross_batch_normalization",
    "linear",
    "max_pooling_2d",
    "recompute",
    "subsample_and_widen",
]
