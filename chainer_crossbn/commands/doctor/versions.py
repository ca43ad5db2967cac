"""Versions of what training stands on."""

import importlib
import importlib.metadata
import platform

PACKAGES = ("numpy", "numba", "chainer", "mpi4py")
_NAMES = {"numpy": "NumPy", "numba": "Numba", "chainer": "Chainer"}
# All that training imports; what fails there fails in training.
_IMPORTED = (
    "mpi4py.MPI",
    "chainer",
    "chainermn",
    "chainer_crossbn.commands.train.main",
)


def described():
    """Return the versions in words."""
    told = [f"Python {platform.python_version()}"]
    told += [f"{_NAMES.get(name, name)} {_version(name)}" for name in PACKAGES]
    return ", ".join(told)


def import_error():
    """Import what training needs.

    Returns:
        str or None: In one line, what can't be imported.
    """
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        # mpi4py: no MPI library. Numba: no place for its cache. Both RuntimeError.
        except (ImportError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            return f"import {name} fails: {reason}; see docs/clusters.md, Install"
    return None


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
