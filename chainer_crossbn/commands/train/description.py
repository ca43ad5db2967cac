"""Describe a run for ``args.json``, apart from its options."""

import os
import platform
import socket

import chainer
import numpy
from chainermn import CommunicatorBase
from mpi4py import MPI

from chainer_crossbn import __version__
from chainer_crossbn.datasets import ImageDataset


def describe(
    data: ImageDataset,
    comm: CommunicatorBase,
    device: chainer.backend.Device,
    collective: str,
    cores: int,
    virtual_ranks: int,
) -> dict:
    """Return what ``args.json`` contains apart from the options.

    Args:
        data (ImageDataset): The images.
        comm: ChainerMN communicator of all processes, which call this together.
        device (chainer.backend.Device): What they compute on.
        collective (str): Collective that sums the statistics over the ranks.
        cores (int): Cores of rank 0's machine.
        virtual_ranks (int): Ranks per process.

    Returns:
        dict: Values that :func:`json.dumps` accepts.
    """
    process = {"rank": comm.rank, "pid": os.getpid(), "host": socket.gethostname()}
    processes = comm.gather_obj(process)
    return {
        "n_ranks": comm.size * virtual_ranks,
        "n_processes": comm.size,
        "virtual_ranks": virtual_ranks,
        "ranks": processes,
        "cores": cores,  # of rank 0's node
        "device": "CPU" if device.xp is numpy else "GPU",
        "collective": collective,
        "dataset": {
            "name": data.name,
            "checksum": data.checksum,
            "train": len(data.train_labels),
            "test": len(data.test_labels),
        },
        "versions": versions_of(device),
    }


def versions_of(device: chainer.backend.Device) -> dict[str, str]:
    """Return the versions of the software that results may depend on, by name."""
    versions = {
        "chainer_crossbn": __version__,
        "python": platform.python_version(),
        "chainer": chainer.__version__,
        "numpy": numpy.__version__,
        "mpi": MPI.Get_library_version().strip().splitlines()[0],
    }
    if device.xp is not numpy:
        versions["cupy"] = device.xp.__version__
    return versions
