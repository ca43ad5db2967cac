"""Runs the GPU's kernels on the CPU, from the same source."""

import ctypes
import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from chainer_crossbn.kernels.launching import THREADS

HERE = Path(__file__).parent
WAYS = ("planes", "wide_planes", "columns", "wide_columns")
ENTRY = """
static void call_{name}(void** arguments) {{ host::call({name}, arguments); }}
extern "C" int launch_{name}(const unsigned* grid, unsigned n_threads, void** values) {{
  return launch_blocks(call_{name}, grid, n_threads, values);
}}
"""


@functools.cache
def _directory():
    return tempfile.TemporaryDirectory()


@functools.cache
def launcher(source, options=()):
    """As :func:`chainer_crossbn.kernels.launching.launcher`, for NumPy arrays."""
    folder = Path(tempfile.mkdtemp(dir=_directory().name))
    whole, library = folder / "kernels.cpp", folder / "kernels.so"
    start, end = (
        HERE.joinpath(f"cuda_on_host{part}.cpp").read_text() for part in ("", "_end")
    )
    code = source.read_text()
    entries = "".join(ENTRY.format(name=name) for name in kernels(code))
    whole.write_text(start + code + end + entries)
    command = [sys.executable, "-m", "ziglang", "c++", "-shared", "-fPIC", "-O1"]
    command += ["-std=c++11", "-nostdlib++", "-fno-exceptions", "-fno-rtti"]
    command += ["-Wno-unknown-pragmas", *options, "-o", library, whole]
    subprocess.run(command, check=True, timeout=300)
    functions = ctypes.CDLL(str(library))

    def launch(name, grid, *arguments):
        grid = (ctypes.c_uint * 2)(*grid, *[1] * (2 - len(grid)))
        values = [_value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        ended_well = getattr(functions, f"launch_{name}")(grid, THREADS, pointers)
        assert ended_well, f"{name}: not all threads came to the same barriers"

    return launch


def kernels(code):
    """Return the names of the kernels of a source."""
    found = []
    for name, pasted in re.findall(r"__global__ void (\w+?)(##NAME)?\(", code):
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
