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


def copy_to_host(array, out):
    """Copy an array on the current device, and wait for it.

    Args:
        array: C-contiguous array on the device.
        out: Array of :func:`pinned` of the same shape and dtype.
    """
    stream = cuda.cupy.cuda.get_current_stream()
    array.get(stream, out=out)
    stream.synchronize()  # which CuPy itself does from 13 on


def copy_to_device(array, out):
    """Have an array copied to the current device, for what comes next there.

    Args:
        array: Array of :func:`pinned`, which must not change before
            :func:`copy_to_host` has waited for what was to do.
        out: C-contiguous array of the same shape and dtype on the device.
    """
    out.set(array, cuda.cupy.cuda.get_current_stream())
