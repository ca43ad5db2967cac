"""Test the model of a finished run."""

import os
import zipfile

import numpy
from chainer.serializers import NpzDeserializer

from chainer_crossbn.commands.train import build
from chainer_crossbn.commands.train.build import Setup
from chainer_crossbn.commands.train.prepare import on_rank_zero
from chainer_crossbn.errors import UsageError


def evaluate(setup: Setup, path: str) -> None:
    """Print loss and accuracy of a run's ``model.npz``; all ranks call it together.

    Args:
        setup (Setup): Options and images to test with.
        path (str): The run directory.

    Raises:
        UsageError: If there is no such model, or if it is of another network.
    """
    model = build.build_model(setup, build.create_dropout(setup))
    file = os.path.join(path, "model.npz")
    arrays = on_rank_zero(setup.comm.mpi_comm, lambda: _read(file))
    try:
        NpzDeserializer(arrays).load(model)
    except (KeyError, ValueError, TypeError):
        raise UsageError(f"{file} is not a model of this network") from None
    values = build.create_evaluator(setup, model)()
    if setup.comm.rank == 0:
        for name, title in (("train", "training"), ("validation", "test")):
            loss, accuracy = (
                values[f"{name}/main/{quantity}"] for quantity in ("loss", "accuracy")
            )
            print(f"{title} loss: {loss:.5g}, accuracy: {accuracy:.2%}", flush=True)


def _read(file):
    try:
        with numpy.load(file) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file; train without --no-model") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} can't be read: {error}") from None
