"""Print how vectors on GPUs are reduced, or each rank's error, as JSON.

Run under mpiexec with what the environment variable is on each rank.
"""

import json
import os
import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
from chainer.backends import cuda
from mpi4py import MPI

from chainer_crossbn.collectives import choose

world = MPI.COMM_WORLD
os.environ["CHAINER_CROSSBN_COLLECTIVE"] = sys.argv[1 + world.rank]
n_devices = cuda.cupy.cuda.runtime.getDeviceCount()
chainer.get_device(f"@cupy:{world.rank % n_devices}").use()
try:
    found = choose(world)
except ValueError as error:
    found = str(error)
everywhere = world.gather(found)
if world.rank == 0:
    print(json.dumps(everywhere), flush=True)
