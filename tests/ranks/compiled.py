"""Prints, as JSON, which kernels training compiles that were not compiled ahead."""

import json
import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
from mpi4py import MPI
from numba.core.dispatcher import Dispatcher

from chainer_crossbn import kernels
from chainer_crossbn.commands.train.main import main as train

FLAGS = "--dataset synthetic --train-size 90 --test-size 20 --epoch 1 --width 4"
FLAGS += " --fc-units 8 --cpu --out"


def signatures():
    """Return the signatures of all compiled functions, by name."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("chainer_crossbn.kernels"):
            for function in vars(module).values():
                if isinstance(function, Dispatcher):
                    found[function.py_func.__qualname__] = set(function.signatures)
    return found


def main(out):
    kernels.precompile()
    before = signatures()
    for bn, batchsize in (("multigpu", 2), ("normal", 16), ("none", 2)):
        name = ("--name", bn, "--bn", bn, "--batchsize", str(batchsize))
        assert train([*FLAGS.split(), out, *name]) == 0
    after = signatures()
    new = {
        name: [str(signature) for signature in found - before.get(name, set())]
        for name, found in after.items()
        if found - before.get(name, set())
    }
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps({"known": len(before), "new": new}))


if __name__ == "__main__":
    main(sys.argv[1])
