"""Runs the GPU's kernels on the CPU, from the same source."""

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
WAYS = ("planes", "wide_planes", "columns", "wide_columns")
KERNEL = re.compile(r"(?:__global__|KERNEL_OF_THREADS) void (\w+?)(##NAME)?\(")
ENTRY = """
static void call_{name}(void** arguments) {{ host::call({name}, arguments); }}
extern "C" int launch_{name}(const unsigned* grid, void** values) {{
  return launch_blocks(call_{name}, grid, values);
}}
"""


# A directory, for processes that are to share what they compile.
CACHE = "CUDA_ON_HOST_CACHE"


@functools.cache
def _directory():
    return tempfile.TemporaryDirectory()


class Launcher:
    """As :class:`chainer_crossbn.kernels.cuda.launching.Launcher`, for NumPy arrays."""

    multiprocessors = 2

    def __init__(self, source, options):
        # The stand-in for CuPy, without which this can't be imported, imports us.
        from chainer_crossbn.kernels.cuda.launching import OPTIONS

        self._launch = load(source.read_text(), (*OPTIONS, *options))
        self._counters = np.zeros(1 << 14, np.uint32)

    def __call__(self, name, grid, arguments):
        self._launch(name, grid, *arguments)
        assert not self._counters.any(), f"{name} leaves counts"

    def counters(self, size):
        assert size <= self._counters.size
        return self._counters[:size]


@functools.cache
def launcher(source, options=()):
    """As :func:`chainer_crossbn.kernels.cuda.launching.launcher`, for NumPy arrays."""
    return Launcher(source, options)


@functools.cache
def load(code, options):
    """Return what launches the kernels of some CUDA C++ on NumPy arrays."""
    start, end = (
        HERE.joinpath(f"cuda_on_host{part}.cpp").read_text() for part in ("", "_end")
    )
    entries = "".join(ENTRY.format(name=name) for name in kernels(code))
    half = end if "struct Half {" in code else ""
    functions = compiled(start + code + half + entries, options)

    def launch(name, grid, *arguments):
        assert all(size <= 65535 for size in grid[1:]), "more than CUDA permits"
        grid = (ctypes.c_uint * 3)(*grid, *[1] * (3 - len(grid)))
        values = [_value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        ended_well = getattr(functions, f"launch_{name}")(grid, pointers)
        assert ended_well, f"{name}: not all threads came to the same barriers"

    return launch


def compiled(code, options=()):
    """Compile C++, and load it."""
    folder = Path(os.environ.get(CACHE) or _directory().name)
    name = hashlib.sha256("\n".join((code, *options)).encode()).hexdigest()[:32]
    library = folder / f"{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as own:
            whole, made = Path(own, "kernels.cpp"), Path(own, "kernels.so")
            whole.write_text(code)
            command = [sys.executable, "-m", "ziglang", "c++", "-shared", "-fPIC"]
            command += ["-O1", "-std=c++11", "-nostdlib++", "-fno-exceptions"]
            command += ["-fno-rtti", "-Wno-unknown-pragmas", *options]
            subprocess.run([*command, "-o", made, whole], check=True, timeout=300)
            made.replace(library)
    return ctypes.CDLL(str(library))


def kernels(code):
    """Return the names of the kernels of a source."""
    found = []
    for name, pasted in KERNEL.findall(code):
        found += [name + way for way in WAYS] if pasted else [name]
    return found


def _value(argument):
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    assert isinstance(argument, (np.int64, np.uintp)), type(argument)
    return ctypes.c_longlong(int(argument))
