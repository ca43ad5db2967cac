"""Kernels for CPUs alone, compiled by Numba."""
