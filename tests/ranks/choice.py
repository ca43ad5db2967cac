"""Print how vectors on GPUs are reduced, or each rank's error, as JSON.

Usage: choice.py SETTINGS..., where each is a list, as JSON, of the setting of the
environment variable on each rank. Prints a list of what each rank has for each.
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
n_devices = cuda.cupy.cuda.runtime.getDeviceCount()
chainer.get_device(f"@cupy:{world.rank % n_devices}").use()
results = []
for settings in sys.argv[1:]:
    os.environ["CHAINER_CROSSBN_COLLECTIVE"] = json.loads(settings)[world.rank]
    try:
        result = choose(world)
    except ValueError as error:
        result = str(error)
    results.append(world.gather(result))
if world.rank == 0:
    print(json.dumps(results), flush=True)
