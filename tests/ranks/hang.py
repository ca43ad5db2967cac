"""Rank 1 hangs, or is stopped, where the others have gone on."""

import os
import signal
import sys
import time

from mpi4py import MPI

from chainer_crossbn.training import watchdog

world = MPI.COMM_WORLD
watchdog._GRACE_SECONDS = 0.5
dog = watchdog.Watchdog(world, world.Split_type(MPI.COMM_TYPE_SHARED), limit=1.0)
for number in range(3):
    dog.at(f"step {number}")
    world.Barrier()
if sys.argv[1] == "slow":
    if world.rank == 1:
        for _ in range(40):
            time.sleep(0.1)
            dog.moves()
elif world.rank == 1:
    if sys.argv[1] == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)
if sys.argv[1] != "inside":
    dog.at("the sum")
world.Barrier()
print("done", flush=True)
