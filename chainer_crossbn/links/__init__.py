"""Links: normalization over all ranks, its comparators, and what is fast on CPUs."""

from chainer_crossbn.links.conversion import create_cross_bn_model
from chainer_crossbn.links.convolution_2d import Convolution2D
from chainer_crossbn.links.cross_batch_normalization import CrossBatchNormalization
from chainer_crossbn.links.layer_normalization import LayerNormalization
from chainer_crossbn.links.linear import Linear
from chainer_crossbn.links.paper_batch_normalization import PaperBatchNormalization
from chainer_crossbn.links.weight_normalization import WeightNormalization

__all__ = [
    "Convolution2D",
    "CrossBatchNormalization",
    "LayerNormalization",
    "Linear",
    "PaperBatchNormalization",
    "WeightNormalization",
    "create_cross_bn_model",
]
