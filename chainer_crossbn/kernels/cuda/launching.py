"""Compiles and launches kernels of CUDA source, on the current device and stream."""

import functools
import threading

import numpy
from chainer.backends import cuda

THREADS = 256  # of a block
OPTIONS = ("--std=c++11", f"-DTHREADS={THREADS}")  # of the compiler, always
NULL = numpy.uintp(0)


class Launcher:
    """Launches kernels of a source, compiled when the first one is launched.

    Args:
        device (int): Which one, the current device from now on.
        source (pathlib.Path): CUDA C++.
        options (tuple of str): Of the compiler, beside :data:`OPTIONS`.

    Attributes:
        multiprocessors (int): How many the device has.
    """

    def __init__(self, device, source, options):
        self.multiprocessors = cuda.cupy.cuda.Device(device).attributes[
            "MultiProcessorCount"
        ]
        self._module = cuda.cupy.RawModule(
            code=source.read_text(), options=(*OPTIONS, *options)
        )
        self._functions = {}
        self._counters = {}

    def __call__(self, name, grid, *arguments):
        """Launch a kernel on the current stream, and wait for nothing.

        Args:
            name (str): Of the kernel.
            grid (tuple of int): In blocks of :data:`THREADS`.
            arguments: Arrays, float, ``numpy.int64``, and :data:`NULL` for no array.
        """
        if name not in self._functions:
            self._functions[name] = self._module.get_function(name)
        self._functions[name](grid, (THREADS,), arguments)

    def counters(self, size):
        """Return zeros for this thread's current stream, which kernels leave as such.

        Args:
            size (int): How many at least.

        Returns:
            uint32 array.
        """
        # Threads may have streams of their own under one handle.
        stream = threading.get_ident(), cuda.cupy.cuda.get_current_stream().ptr
        found = self._counters.get(stream)
        if found is None or found.size < size:
            size = 1 << (size - 1).bit_length()
            found = self._counters[stream] = cuda.cupy.zeros(size, numpy.uint32)
        return found


def launcher(source, options=()):
    """Return the :class:`Launcher` of the current device for a source.

    Args:
        source (pathlib.Path): CUDA C++.
        options (tuple of str): Of the compiler, beside :data:`OPTIONS`.
    """
    return _launcher(cuda.cupy.cuda.Device().id, source, options)


_launcher = functools.cache(Launcher)


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
