"""Check that all ranks run the same arguments, code, libraries and settings."""

import hashlib
import importlib.metadata
import os
import platform
import socket
from pathlib import Path

from mpi4py import MPI

from chainer_crossbn.errors import UsageError

_LIBRARIES = ("chainer", "mpi4py", "numba", "numpy")
_PREFIX = "CHAINER"  # of the environment variables of Chainer and of this package
# The location of a rank's files may differ.
_MAY_DIFFER = ("CHAINER_DATASET_ROOT",)


def check_alike(world: MPI.Comm, argv: list[str]) -> None:
    """Check that all ranks were started in the same way; they call this together.

    Args:
        world (mpi4py.MPI.Comm): All ranks.
        argv (list of str): Arguments of this rank.

    Raises:
        UsageError: On all ranks, if any rank differs from rank 0; the message names
            the first such rank.
    """
    own = {"arguments": " ".join(argv), **_versions(), **_settings()}
    gathered = world.allgather((socket.gethostname(), own))
    reference = gathered[0][1]
    for rank, (host, values) in enumerate(gathered):
        for name in sorted({*reference, *values}):
            expected, actual = reference.get(name), values.get(name)
            if actual != expected:
                raise UsageError(
                    f"rank {rank} on {host} differs from rank 0: its {name} is "
                    f"{actual}, not {expected}; start all ranks in the same way"
                )


def _versions():
    code = hashlib.sha256()
    package = Path(__file__).parents[2]
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.cu")]):
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
        if name.startswith(_PREFIX) and name not in _MAY_DIFFER
    }
