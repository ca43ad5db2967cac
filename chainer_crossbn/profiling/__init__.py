"""Where the time of a training step goes, by layer, over all ranks."""

from chainer_crossbn.profiling.profiler import Profiler

__all__ = ["Profiler"]
