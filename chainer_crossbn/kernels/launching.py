"""Compiles and launches kernels of CUDA source, on the current device and stream."""

import functools

import numpy
from chainer.backends import cuda

THREADS = 256  # of a block
NULL = numpy.uintp(0)


def launcher(source, options=()):
    """Return what launches the kernels of a source, compiled when first launched.

    Args:
        source (pathlib.Path): CUDA C++.
        options (tuple of str): Of the compiler.

    Returns:
        callable: Takes the name of a kernel, the grid (a tuple of int, in blocks of
        :data:`THREADS`) and its arguments: arrays, float, ``numpy.int64``, and
        :data:`NULL` for no array. Waits for nothing.
    """
    return _launcher(cuda.cupy.cuda.Device().id, source, options)


@functools.cache
def _launcher(device, source, options):
    module = cuda.cupy.RawModule(
        code=source.read_text(), options=("--std=c++11", *options)
    )
    functions = {}

    def launch(name, grid, *arguments):
        if name not in functions:
            functions[name] = module.get_function(name)
        functions[name](grid, (THREADS,), arguments)

    return launch


@functools.cache
def _multiprocessors(device):
    return cuda.cupy.cuda.Device(device).attributes["MultiProcessorCount"]


def multiprocessors():
    """Return how many multiprocessors the current device has."""
    return _multiprocessors(cuda.cupy.cuda.Device().id)


def pinned(size, dtype=numpy.float64):
    """Return an array in page-locked host memory, which a device copies to and from.

    Args:
        size (int): Elements.
        dtype: Their dtype.
    """
    memory = cuda.cupy.cuda.alloc_pinned_memory(size * numpy.dtype(dtype).itemsize)
    return numpy.frombuffer(memory, dtype, size)
