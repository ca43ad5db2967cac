"""Trainer extensions that see all ranks."""

from chainer_crossbn.training.extensions.epoch_statistics import EpochStatistics
from chainer_crossbn.training.extensions.global_evaluator import GlobalEvaluator
from chainer_crossbn.training.extensions.guard import Guard
from chainer_crossbn.training.extensions.learning_rate import LearningRate

__all__ = ["EpochStatistics", "GlobalEvaluator", "Guard", "LearningRate"]
