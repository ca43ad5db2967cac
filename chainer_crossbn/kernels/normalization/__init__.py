"""Kernels of batch normalization, for NumPy and CuPy arrays and for all others."""

from chainer_crossbn.kernels.normalization import array_api, cuda

__all__ = ["array_api", "cuda"]
