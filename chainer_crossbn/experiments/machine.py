"""The machines that runs are made on, recorded beside their logs."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from chainer_crossbn.runs.files import write_json

_NAME = "machine.json"


def describe() -> dict[str, Any]:
    """Describe this machine.

    Returns:
        dict: CPU, available cores, memory in GiB, system and versions; unknown values
        are ``None``.
    """
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.processor() or None,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": _memory(),
        "instructions": _vector_instructions(),
        "system": _system(),
        "python": platform.python_version(),
        "packages": {
            name: _version(name)
            for name in ("chainer", "numpy", "numba", "mpi4py", "mpich")
        },
    }


def record(out: str) -> None:
    """Add this machine to those of the runs in a directory, if it is a new one."""
    machines = read(out)
    here = describe()
    if here not in machines:
        write_json(Path(out, _NAME), [*machines, here])


def read(out: str) -> list[dict[str, Any]]:
    """Return the machines that the runs in a directory were made on, oldest first.

    Returns:
        list of dict: As :func:`describe` returns them.
    """
    try:
        return json.loads(Path(out, _NAME).read_text())
    except FileNotFoundError:
        return []


def _first(path, key):
    """Return the first value of a key in a file of ``key: value`` lines."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _memory():
    text = _first("/proc/meminfo", "MemTotal")
    return round(int(text.split()[0]) / 2**20, 1) if text else None


def _vector_instructions():
    flags = (_first("/proc/cpuinfo", "flags") or "").split()
    known = {"avx": "AVX", "avx2": "AVX2", "avx512f": "AVX-512"}
    return [name for flag, name in known.items() if flag in flags]


def _system():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (AttributeError, OSError):  # Python 3.9
        return f"{platform.system()} {platform.release()}"


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
