"""The weights that a run directory keeps."""

import os

import chainer

from chainer_crossbn.runs.files import replacing


def write_model(path: str, model: chainer.Link) -> None:
    """Write ``model.npz``, parameters and running statistics, atomically.

    Args:
        path (str): The run directory.
        model (chainer.Link): The trained model.
    """
    with replacing(os.path.join(path, "model.npz")) as file:
        # Weights hardly get smaller, and compressing them takes seconds.
        chainer.serializers.save_npz(file, model, compression=False)
