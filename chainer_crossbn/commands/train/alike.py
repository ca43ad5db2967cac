"""Whether all ranks run the same: arguments, code, libraries and settings."""

import hashlib
import importlib.metadata
import os
import platform
import socket
from pathlib import Path

from chainer_crossbn.errors import UsageError

_LIBRARIES = ("chainer", "mpi4py", "numba", "numpy")
_SETTINGS = "CHAINER"  # of Chainer and of this package
# Where a rank's files lie may differ.
_OWN = ("CHAINER_DATASET_ROOT",)


def check_alike(world, argv):
    """Check that the ranks, which call this together, were all started alike.

    Args:
        world (mpi4py.MPI.Comm): All ranks.
        argv (list of str): Arguments of this rank.

    Raises:
        UsageError: On all ranks, if not; it names the first that differs from rank 0.
    """
    mine = {"arguments": " ".join(argv), **_versions(), **_settings()}
    told = world.allgather((socket.gethostname(), mine))
    first = told[0][1]
    for rank, (host, other) in enumerate(told):
        for what in sorted({*first, *other}):
            if first.get(what) != other.get(what):
                raise UsageError(
                    f"rank {rank} on {host} differs from rank 0: its {what} is "
                    f"{other.get(what)}, not {first.get(what)}; start all ranks alike"
                )


def _versions():
    code = hashlib.sha256()
    package = Path(__file__).parents[2]
    for path in sorted(package.rglob("*.py")):
        code.update(path.relative_to(package).as_posix().encode() + b"\0")
        code.update(path.read_bytes())
    return {
        "checksum of chainer_crossbn's code": code.hexdigest()[:12],
        "version of python": platform.python_version(),
        **{f"version of {name}": _version(name) for name in _LIBRARIES},
    }


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _settings():
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_SETTINGS) and name not in _OWN
    }
