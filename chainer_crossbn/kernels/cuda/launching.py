"""Compiles and launches kernels of CUDA source, on the current device and stream."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Union

import numpy
from chainer.backends import cuda

THREADS = 256  # of a block
OPTIONS = ("--std=c++11", f"-DTHREADS={THREADS}")  # of the compiler, always
NULL = numpy.uintp(0)
Pointer = Union[cuda.ndarray, numpy.uintp]  # an array on the device, or NULL


class Launcher:
    """Launches kernels of a source, which is compiled at the first launch.

    Args:
        device (int): The device, which must be current at each launch.
        source (pathlib.Path): CUDA C++.
        options (tuple of str): Options of the compiler, in addition to
            :data:`OPTIONS`.

    Attributes:
        multiprocessors (int): Number of multiprocessors of the device.
    """

    def __init__(self, device: int, source: Path, options: tuple[str, ...]) -> None:
        self.multiprocessors = cuda.cupy.cuda.Device(device).attributes[
            "MultiProcessorCount"
        ]
        self._module = cuda.cupy.RawModule(
            code=source.read_text(), options=(*OPTIONS, *options)
        )
        self._functions: dict[str, Callable[..., None]] = {}
        self._counters: dict[tuple[int, int], cuda.ndarray] = {}

    def __call__(self, name: str, grid: tuple[int, ...], arguments: tuple) -> None:
        """Launch a kernel on the current stream, and wait for nothing.

        Args:
            name (str): Name of the kernel.
            grid (tuple of int): Blocks of :data:`THREADS` threads.
            arguments (tuple): The kernel's arguments in its order, as a named tuple of
                the caller states it: arrays, float, ``numpy.int64``, and :data:`NULL`
                for no array.
        """
        if name not in self._functions:
            self._functions[name] = self._module.get_function(name)
        self._functions[name](grid, (THREADS,), arguments)

    def counters(self, size: int) -> cuda.ndarray:
        """Return zeros for this thread's current stream, which kernels reset to zeros.

        Args:
            size (int): Least number of zeros.

        Returns:
            uint32 array.
        """
        # Threads may have streams of their own under one handle.
        stream = threading.get_ident(), cuda.cupy.cuda.get_current_stream().ptr
        counters = self._counters.get(stream)
        if counters is None or counters.size < size:
            size = 1 << (size - 1).bit_length()
            counters = self._counters[stream] = cuda.cupy.zeros(size, numpy.uint32)
        return counters


def launcher(source: Path, options: tuple[str, ...] = ()) -> Launcher:
    """Return the :class:`Launcher` of the current device for a source.

    Args:
        source (pathlib.Path): CUDA C++.
        options (tuple of str): Options of the compiler, in addition to
            :data:`OPTIONS`.
    """
    return _launcher(cuda.cupy.cuda.Device().id, source, options)


_launcher = functools.cache(Launcher)


def pinned(size: int, dtype=numpy.float64) -> numpy.ndarray:
    """Return an array in page-locked host memory, for copies to and from a device.

    Args:
        size (int): Number of elements.
        dtype: Dtype of the elements.
    """
    memory = cuda.cupy.cuda.alloc_pinned_memory(size * numpy.dtype(dtype).itemsize)
    return numpy.frombuffer(memory, dtype, size)


def copy_to_host(array: cuda.ndarray, out: numpy.ndarray) -> None:
    """Copy an array on the current device, and wait for it.

    Args:
        array: C-contiguous array on the device.
        out: Array of :func:`pinned` of the same shape and dtype.
    """
    stream = cuda.cupy.cuda.get_current_stream()
    array.get(stream, out=out)
    stream.synchronize()  # which CuPy itself does from 13 on


def copy_to_device(array: numpy.ndarray, out: cuda.ndarray) -> None:
    """Start to copy an array to the current device, ahead of its next operation.

    Args:
        array: Array of :func:`pinned`, which must not change before
            :func:`copy_to_host` has waited for the device.
        out: C-contiguous array of the same shape and dtype on the device.
    """
    out.set(array, cuda.cupy.cuda.get_current_stream())
