"""Rank 1 hangs or is stopped, while the others continue."""

import os
import signal
import sys
import time

from mpi4py import MPI

from chainer_crossbn.training.watchdog import Watchdog

world = MPI.COMM_WORLD
node = world.Split_type(MPI.COMM_TYPE_SHARED)
dog = Watchdog(world, node, limit=1.0, grace=0.5)
for number in range(3):
    dog.reach(f"step {number}")
    world.Barrier()
if sys.argv[1] == "slow":
    if world.rank == 1:
        for _ in range(40):
            time.sleep(0.1)
            dog.keep_alive()
elif world.rank == 1:
    if sys.argv[1] == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)
if sys.argv[1] != "inside":
    dog.reach("the sum")
world.Barrier()
print("done", flush=True)
