"""Trainer extensions that see all ranks."""

from chainer_crossbn.extensions.epoch_statistics import EpochStatistics
from chainer_crossbn.extensions.global_evaluator import GlobalEvaluator
from chainer_crossbn.extensions.guard import Guard

__all__ = ["EpochStatistics", "GlobalEvaluator", "Guard"]
