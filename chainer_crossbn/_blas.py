"""Lets NumPy's OpenBLAS use AVX-512 on processors that are newer than it.

Up to 0.3.31 OpenBLAS takes AMD's Zen 5 for a Haswell, at half of its speed in matrix
products (OpenMathLib/OpenBLAS, pull request 6033). It heeds ``OPENBLAS_CORETYPE`` when
it is loaded, with NumPy.
"""

import os
import re
import sys

_VARIABLE = "OPENBLAS_CORETYPE"
_ZEN_5 = 26  # family
_AVX_512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def install(cpuinfo="/proc/cpuinfo"):
    """Name the kind of core for OpenBLAS, if NumPy is still to come.

    What the user has set stays as it is.

    Args:
        cpuinfo (str): Path of what Linux tells of the processors.
    """
    if "numpy" in sys.modules or _VARIABLE in os.environ:
        return
    try:
        with open(cpuinfo) as file:
            text = file.read()
    except OSError:  # not Linux
        return
    if _is_unknown_avx_512(text):
        os.environ[_VARIABLE] = "SkylakeX"


def _is_unknown_avx_512(cpuinfo):
    family = re.search(r"^cpu family\s*:\s*(\d+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return (
        "AuthenticAMD" in cpuinfo
        and family is not None
        and int(family[1]) >= _ZEN_5
        and flags is not None
        and _AVX_512.issubset(flags[1].split())
    )
