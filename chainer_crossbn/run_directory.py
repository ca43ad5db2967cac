"""The directory of one run.

It has ``args.json``, ``log``, ``model.npz`` and, last of all, ``statistics.json``.
"""

import json
import os
import platform
import tempfile

import chainer
import numpy

from chainer_crossbn import __version__
from chainer_crossbn.command_line import UsageError


def create(out, name):
    """Create the directory of a run.

    Args:
        out (str): Directory that gathers runs.
        name (str): Name of the run.

    Returns:
        str: Path of the new directory.

    Raises:
        UsageError: If it exists already or can't be written.
    """
    if name in ("", ".", "..") or os.path.basename(name) != name:
        raise UsageError(f"--name {name!r} is not the name of a directory")
    path = os.path.join(out, name)
    if os.path.lexists(path):
        raise UsageError(
            f"{path} exists already, and runs are never overwritten; choose another "
            "--name or --out, or remove it"
        )
    try:
        os.makedirs(path)
    except OSError as error:
        raise UsageError(
            f"can't create {path}: {error.strerror}; choose another --out"
        ) from None
    return path


def write_arguments(path, arguments, details):
    """Write ``args.json``.

    Args:
        path (str): Directory of the run.
        arguments (dict): All arguments, defaults filled in.
        details (dict): What else there is to know of the run, next to the versions.
    """
    content = {
        "program": "chainer_crossbn",
        "arguments": arguments,
        **details,
        "versions": {
            "chainer_crossbn": __version__,
            "python": platform.python_version(),
            "chainer": chainer.__version__,
            "numpy": numpy.__version__,
            **details.get("versions", {}),
        },
    }
    _write_json(os.path.join(path, "args.json"), content)


def write_statistics(path, test, layers):
    """Write ``statistics.json``: what the statistics of batch normalization are like.

    Args:
        path (str): Directory of the run.
        test (dict): Final test loss and accuracy with the ranks' running statistics
            ``averaged``, with those of ``rank0``, and without the variance between
            ranks (``within``); empty where all ranks have the same.
        layers (list): As :func:`chainer_crossbn.local_statistics.deviations` returns
            it; empty without batch normalization of this package.
    """
    _write_json(os.path.join(path, "statistics.json"), {"test": test, "layers": layers})


def write_profile(path, content):
    """Write ``profile.json``, in one line a value of the top level.

    Args:
        path (str): Directory of the run.
        content (dict): As :class:`chainer_crossbn.profiling.Profiler` makes it.
    """
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in content.items()
    ]
    with _replacing(os.path.join(path, "profile.json")) as file:
        file.write(("{" + ",\n ".join(lines) + "}\n").encode())


def write_model(path, model):
    """Write ``model.npz``, parameters and running statistics, whole or not at all.

    Args:
        path (str): Directory of the run.
        model (chainer.Link): The trained model.
    """
    with _replacing(os.path.join(path, "model.npz")) as file:
        # Weights hardly get smaller, and compressing them takes seconds.
        chainer.serializers.save_npz(file, model, compression=False)


def _write_json(path, content):
    with _replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")


class _replacing:
    """Opens a temporary file that takes the place of ``path`` when all is written."""

    def __init__(self, path):
        self._path = path

    def __enter__(self):
        handle, self._temporary = tempfile.mkstemp(dir=os.path.dirname(self._path))
        self._file = os.fdopen(handle, "wb")
        return self._file

    def __exit__(self, kind, value, traceback):
        self._file.close()
        if kind is None:
            os.chmod(self._temporary, 0o644)
            os.replace(self._temporary, self._path)
        else:
            os.unlink(self._temporary)
