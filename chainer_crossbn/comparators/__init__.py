"""Normalizations that the paper names or measures, to compare with."""

from chainer_crossbn.comparators.layer_normalization import LayerNormalization
from chainer_crossbn.comparators.paper_batch_normalization import (
    PaperBatchNormalization,
)
from chainer_crossbn.comparators.weight_normalization import WeightNormalization

__all__ = ["LayerNormalization", "PaperBatchNormalization", "WeightNormalization"]
