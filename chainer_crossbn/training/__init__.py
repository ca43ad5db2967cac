"""Training on all ranks: iterator, updater, optimizer and extensions."""

from chainer_crossbn.training.extensions import EpochStatistics, GlobalEvaluator
from chainer_crossbn.training.iterators import ShareIterator
from chainer_crossbn.training.local_statistics import deviations
from chainer_crossbn.training.optimizers import MomentumSGD
from chainer_crossbn.training.running_statistics import averaged
from chainer_crossbn.training.updaters import GlobalUpdater, prime

__all__ = [
    "EpochStatistics",
    "GlobalEvaluator",
    "GlobalUpdater",
    "MomentumSGD",
    "ShareIterator",
    "averaged",
    "deviations",
    "prime",
]
