"""All kernels compile for all generations of GPUs; no GPU is needed for that.

CUDA 11's compiler takes a K80 (compute capability 3.7), CUDA 12's all from 5.0 on.
It is done on all cores, ahead of the tests.
"""

import ctypes
import functools
import os
import re
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import numpy as np
import pytest
from cuda_on_host import kernels

from chainer_crossbn.kernels.cuda import launching
from chainer_crossbn.kernels.normalization import cuda, packing

ARCHITECTURES = {"cu11": (37,), "cu12": (50, 60, 70, 80, 90, 100)}
# Of images and of parameters: alike, those of mixed16, and of second derivatives.
DTYPES = ["ee", "ef", "ff", "dd", "de", "df"]
RELU_OF = ["ef", "ff"]  # what training uses
SOURCES = [
    *(
        (cuda.SOURCE, cuda.options(*map(np.dtype, dtypes), relu))
        for relu, of in ((False, DTYPES), (True, RELU_OF))
        for dtypes in of
    ),
    (packing.SOURCE, ()),
]
# CUDA 12's compiler says of what it still compiles that another one won't.
DEPRECATED = re.compile(r"nvrtc: warning: Architectures prior to .* deprecated .*")


@functools.cache
def compiler(release):
    """Load NVRTC from the wheel of a CUDA release."""
    files = metadata.files(f"nvidia-cuda-nvrtc-{release}")
    (path,) = (f for f in files if f.match("libnvrtc.so.*") and "alt" not in f.name)
    return ctypes.CDLL(str(path.locate()))


def compiled(nvrtc, source, options):
    """Return status, log and machine code."""
    program = ctypes.c_void_p()
    text = source.read_text().encode()
    made = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), text, source.name.encode(), 0, None, None
    )
    assert made == 0
    words = [option.encode() for option in options]
    status = nvrtc.nvrtcCompileProgram(
        program, len(words), (ctypes.c_char_p * len(words))(*words)
    )
    log = _read(nvrtc, "ProgramLog", program)
    code = b"" if status else _read(nvrtc, "CUBIN", program)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return status, log.rstrip(b"\0").decode(), code


def _read(nvrtc, what, program):
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, text) == 0
    return text.raw


@pytest.fixture(scope="module")
def compilations(request):
    """What becomes of all that the chosen tests want compiled, by their names."""

    def start(release, architecture, source, options):
        flags = *launching.OPTIONS, f"--gpu-architecture=sm_{architecture}", *options
        return pool.submit(compiled, compiler(release), source, flags)

    pool = ThreadPoolExecutor(os.cpu_count())
    yield {item.name: start(**item.callspec.params) for item in request.session.items}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    "source,options", SOURCES, ids=[" ".join((s.name, *o)) for s, o in SOURCES]
)
@pytest.mark.parametrize(
    "release,architecture",
    [(release, a) for release, found in ARCHITECTURES.items() for a in found],
)
def test_compilation(request, compilations, release, architecture, source, options):
    status, log, code = compilations[request.node.name].result()
    assert status == 0, log
    assert not DEPRECATED.sub("", log).strip()
    assert code.startswith(b"\x7fELF")
    names = [name for name in kernels(source.read_text()) if name.encode() not in code]
    assert not names
