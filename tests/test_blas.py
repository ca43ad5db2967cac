"""Which core OpenBLAS is told to take."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chainer_crossbn import _blas

ROOT = Path(__file__).resolve().parent.parent
AVX_512 = "avx512f avx512dq avx512cd avx512bw avx512vl"
CODE = """
import sys
sys.path.insert(0, {root!r})
{before}
import os
from chainer_crossbn import _blas
os.environ.pop("OPENBLAS_CORETYPE", None) if {forget} else None
_blas.install({cpuinfo!r})
print(os.environ.get("OPENBLAS_CORETYPE"))
"""


def core_type(cpuinfo, before="", preset=None):
    """What a fresh interpreter leaves for OpenBLAS."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    if preset:
        environment["OPENBLAS_CORETYPE"] = preset
    code = CODE.format(
        root=str(ROOT), before=before, forget=not preset, cpuinfo=str(cpuinfo)
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def cpuinfo(tmp_path, vendor="AuthenticAMD", family=26, flags=AVX_512):
    path = tmp_path / "cpuinfo"
    path.write_text(
        f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\n"
        f"model\t\t: 2\nflags\t\t: fpu sse2 {flags}\n"
    )
    return path


def test_zen_5_is_taken_for_what_it_can(tmp_path):
    assert core_type(cpuinfo(tmp_path)) == "SkylakeX"


@pytest.mark.parametrize(
    "processor",
    [
        {"family": 25},
        {"vendor": "GenuineIntel", "family": 6},
        {"flags": "avx2 avx512f"},
    ],
    ids=["Zen 4", "Intel", "without all of AVX-512"],
)
def test_openblas_knows_the_others(tmp_path, processor):
    assert core_type(cpuinfo(tmp_path, **processor)) == "None"


def test_a_machine_that_tells_nothing(tmp_path):
    assert core_type(tmp_path / "missing") == "None"


def test_what_the_user_has_set_stays(tmp_path):
    assert core_type(cpuinfo(tmp_path), preset="Haswell") == "Haswell"


def test_nothing_is_set_once_numpy_is_loaded(tmp_path):
    assert core_type(cpuinfo(tmp_path), before="import numpy") == "None"


@pytest.mark.skipif(
    not _blas._is_unknown_avx_512(
        Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    ),
    reason="for processors that OpenBLAS does not know",
)
def test_openblas_heeds_it():
    code = (
        "import chainer_crossbn, numpy, threadpoolctl\n"
        "print({i['architecture'] for i in threadpoolctl.threadpool_info()"
        " if i['internal_api'] == 'openblas'})"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "SkylakeX" in done.stdout
