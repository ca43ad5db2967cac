"""What a run writes about itself, besides its arguments."""

import os
import platform
import socket

import chainer
import numpy
from mpi4py import MPI

from chainer_crossbn import __version__


def describe(data, comm, device, collective, cores, virtual_ranks):
    """Gather what ``args.json`` tells of the run besides the arguments.

    Args:
        data: The dataset.
        comm: ChainerMN communicator of all processes, which call this together.
        device (chainer.backend.Device): What they compute on.
        collective (str): How the normalizations' vectors are reduced.
        cores (int): Cores of rank 0's machine.
        virtual_ranks (int): Ranks per process.

    Returns:
        dict: What :func:`json.dumps` takes.
    """
    mine = {"rank": comm.rank, "pid": os.getpid(), "host": socket.gethostname()}
    all_ranks = comm.gather_obj(mine)
    return {
        "n_ranks": comm.size * virtual_ranks,
        "n_processes": comm.size,
        "virtual_ranks": virtual_ranks,
        "ranks": all_ranks,
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


def versions_of(device):
    """Return the versions of what a run's results may depend on, by name."""
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
