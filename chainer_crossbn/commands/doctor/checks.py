"""From what the ranks have seen to what is wrong with it.

``seen`` is a list with, for each rank, what :func:`node.seen` returns, and ``gpus``,
what :func:`gpus.seen` returns.
"""

import collections

from chainer_crossbn.commands.doctor import disk, gpus
from chainer_crossbn.commands.doctor.findings import FATAL, HURTS, NOTE, Finding

# VGG16 as it is, 64 images a rank, takes 0.8 GB.
_MEMORY_OF_A_RANK = 1 << 30
# Of MPI and NCCL; containers come with 64 MiB in all.
_SHM_OF_A_RANK = 32 << 20
_CLOCKS_APART = 1.0
_LOCKED = 64 << 20
# An all-reduce of a few bytes takes microseconds within a node and tens between two.
_SLOW = 1e-3
_ALL_REDUCES = 26  # of a step with VGG16's 13 normalizations


def by_host(seen):
    """Return the ranks of each host, the first rank's first.

    Args:
        seen (list of dict): Of each rank.

    Returns:
        dict: Host name -> list of ranks.
    """
    ranks = collections.defaultdict(list)
    for rank, mine in enumerate(seen):
        ranks[mine["host"]].append(rank)
    return dict(ranks)


def cores_of(seen, ranks):
    """Return how many cores the ranks of a node may use together."""
    return len(set().union(*(seen[rank]["cores"] for rank in ranks)))


def of_nodes(seen, node_sizes):
    """Check nodes: names, cores, memory, clocks.

    Args:
        seen (list of dict): Of each rank.
        node_sizes (list of int): Of each rank, how many ranks MPI sees on its node.

    Yields:
        Finding: What is wrong.
    """
    for host, ranks in by_host(seen).items():
        first = seen[ranks[0]]
        n, cores = len(ranks), cores_of(seen, ranks)
        if {node_sizes[rank] for rank in ranks} != {n}:
            yield Finding(
                HURTS,
                f"{n} ranks are on hosts named {host}, but MPI sees "
                f"{node_sizes[ranks[0]]} on one node: ChainerMN takes the name for the "
                "node; give each node (or container) its own name, and all ranks of "
                "a node the same",
            )
        if n > cores:
            yield Finding(
                HURTS,
                f"{host}: {n} ranks share {cores} cores, and take turns; start fewer, "
                "or let the launcher bind them to more cores",
            )
        elif n * (first["blas"] or 1) > cores:
            yield Finding(
                NOTE,
                f"{host}: BLAS would start {first['blas']} threads in each of {n} "
                f"ranks on {cores} cores; train_cifar.py limits them, programs of your "
                f"own need OMP_NUM_THREADS={cores // n}",
            )
        yield from _of_memory(host, n, first)
    times = [mine["time"] for mine in seen]
    if max(times) - min(times) > _CLOCKS_APART:
        late = min(range(len(seen)), key=times.__getitem__)
        yield Finding(
            HURTS,
            f"the clocks of the nodes are {max(times) - min(times):.0f} s apart "
            f"({seen[late]['host']} is behind): dates of files will mislead; have them "
            "set by NTP",
        )


def _of_memory(host, n, first):
    memory, shm, locked = first["memory"], first["shm"], first["locked"]
    if memory is not None and memory < n * _MEMORY_OF_A_RANK:
        yield Finding(
            HURTS,
            f"{host}: {memory / 2**30:.1f} GiB of memory are free for {n} ranks; VGG16 "
            "of full width at 64 images wants 1 GiB each; take a smaller --width or "
            "--batchsize",
        )
    if shm is not None and shm < n * _SHM_OF_A_RANK:
        yield Finding(
            HURTS,
            f"{host}: /dev/shm has {shm >> 20} MiB free for {n} ranks, and MPI and "
            f"NCCL exchange data there; give the container "
            f"{n * _SHM_OF_A_RANK >> 20} MiB (--shm-size) or the host's /dev/shm",
        )
    if locked is not None and locked < _LOCKED:
        yield Finding(
            HURTS,
            f"{host}: only {locked >> 10} KiB may be locked in memory, so that MPI may "
            "leave InfiniBand aside; raise ulimit -l for jobs",
        )


def of_gpus(seen):
    """Check GPUs: whether Chainer can use them, and each rank has its own.

    Args:
        seen (list of dict): Of each rank.

    Yields:
        Finding: What is wrong.
    """
    for host, ranks in by_host(seen).items():
        found = seen[ranks[0]]["gpus"]
        n, count = len(ranks), len(found["devices"])
        if found["why"] is not None and (found["driver"] or found["boards"]):
            yield Finding(
                HURTS,
                f"{host}: there is a GPU, but Chainer can't use it: {found['why']}; "
                "see docs/clusters.md for the CuPy that goes with the driver",
            )
        old = gpus.too_old(found)
        if old:
            yield Finding(
                FATAL,
                f"{host}: CUDA {found['cuda'] // 100} compiles no code for "
                f"{', '.join(old)}; install the CuPy of an older CUDA, see "
                "docs/clusters.md",
            )
        if not count or count >= n:
            continue
        buses = [tuple(d["bus"] for d in seen[r]["gpus"]["devices"]) for r in ranks]
        # A launcher may show each rank one of its own.
        if max(map(buses.count, buses)) > count:
            yield Finding(
                HURTS,
                f"{host}: {n} ranks see {count} GPUs, and will compute on CPUs; start "
                "no more ranks than GPUs, or share GPUs by --communicator staged",
            )


def of_disk(found, out):
    """Check the disk that results go to.

    Args:
        found (dict): As :func:`disk.look` returns it.
        out (str): Value of ``--out``.

    Yields:
        Finding: What is wrong.
    """
    if found["error"] is not None:
        yield Finding(
            FATAL,
            f"results can't be written into {found['path']}: {found['error']}; choose "
            "another --out",
        )
    elif found["free"] < disk.NEEDED:
        yield Finding(
            HURTS,
            f"{found['free'] / 1e9:.1f} GB are free for {out}; the snapshots of VGG16 "
            f"in full width want {disk.NEEDED / 1e9:g} GB; choose another --out",
        )


def of_times(times, load):
    """Check how long all-reduces take.

    Args:
        times (list of timing.Time): The smallest first.
        load (float): Load average of rank 0's node.

    Yields:
        Finding: What is wrong.
    """
    if times and times[0].seconds > _SLOW:
        ms = 1e3 * times[0].seconds
        yield Finding(
            HURTS,
            f"an all-reduce of {times[0].size} bytes takes {ms:.1f} ms, and a step of "
            f"multigpuBN with VGG16 makes {_ALL_REDUCES}: other programs or ranks "
            f"share the cores (load average {load:.1f}), or the network is slow (see "
            "docs/clusters.md for the choice of interface)",
        )
