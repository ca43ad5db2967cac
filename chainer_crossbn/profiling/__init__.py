"""The time of a training step, by layer, over all ranks."""

from chainer_crossbn.profiling.profiler import Profiler
from chainer_crossbn.profiling.recorder import Recorder

__all__ = ["Profiler", "Recorder"]
