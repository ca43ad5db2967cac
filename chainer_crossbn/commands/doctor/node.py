"""What a rank sees of the node that it runs on."""

import os
import resource
import shutil
import socket
import time

from chainer_crossbn.commands.train import threads

_SHM = "/dev/shm"
_INFINIBAND = "/sys/class/infiniband"


def seen():
    """Look around.

    Returns:
        dict: ``host``; ``cores``, the set of those that this rank may use; ``blas``,
        the threads that BLAS starts by itself; ``memory`` and ``shm``, bytes that are
        free; ``locked``, bytes that may be locked in memory where there is InfiniBand;
        these four may be ``None``, where that can't be told; ``time``, seconds since
        the epoch by the clock of the node.
    """
    return {
        "host": socket.gethostname(),
        "cores": _cores(),
        "blas": threads.of_blas(),
        "memory": _free_memory(),
        "shm": shutil.disk_usage(_SHM).free if os.path.isdir(_SHM) else None,
        "locked": _lockable(),
        "time": time.time(),
    }


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _free_memory():
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return None


def _lockable():
    if not os.path.isdir(_INFINIBAND) or not os.listdir(_INFINIBAND):
        return None
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY else limit
