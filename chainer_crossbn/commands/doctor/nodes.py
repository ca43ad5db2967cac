"""Facts about a node and its GPUs, and what is wrong with them."""

import glob
import importlib.util
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from typing import NamedTuple, Optional

from chainer.backends import cuda

from chainer_crossbn.collectives.choice import has_nccl
from chainer_crossbn.commands.doctor.problems import Problem, error, warning

_SHM = "/dev/shm"
# MPI and NCCL exchange data in /dev/shm. Containers have 64 MiB by default.
_SHM_PER_RANK = 32 << 20
# Four snapshots and a model of VGG16 of full width, 33.6 million parameters.
_RESULTS = 1_250_000_000
# Lowest compute capability for which a CUDA release compiles (NVIDIA's release notes:
# 12.0 dropped Kepler's 3.x, 13.0 dropped Maxwell to Volta).
_LOWEST_CAPABILITY = ((13, 75), (12, 50), (11, 35))


class GPU(NamedTuple):
    """A CUDA device: its name, compute capability (37 for 3.7) and bytes of memory."""

    name: str
    capability: int
    memory: int


class Node(NamedTuple):
    """A node.

    Attributes:
        host (str): Its name.
        n_ranks (int): Number of ranks.
        cores (int): Cores that the ranks may use together.
        shm (int or None): Free bytes in ``/dev/shm``.
        gpus (tuple of GPU): GPUs that its first rank can use.
        cuda (int): Version of the CUDA runtime, such as 11080 for 11.8; 0 without.
        versions (str): Versions of CUDA and NCCL.
        gpu_error (str or None): Why Chainer can't use GPUs.
        has_gpus (bool): Whether there are device files of GPUs.
    """

    host: str
    n_ranks: int
    cores: int
    shm: Optional[int] = None
    gpus: tuple[GPU, ...] = ()
    cuda: int = 0
    versions: str = ""
    gpu_error: Optional[str] = None
    has_gpus: bool = False

    @property
    def threads(self) -> int:
        """BLAS threads per rank."""
        return max(1, self.cores // self.n_ranks)


def inspect(n_ranks: int, cores: int) -> Node:
    """Inspect this node.

    Args:
        n_ranks (int): Number of ranks on this node.
        cores (int): Cores that they may use together.
    """
    node = Node(
        host=socket.gethostname(),
        n_ranks=n_ranks,
        cores=cores,
        shm=shutil.disk_usage(_SHM).free if os.path.isdir(_SHM) else None,
        has_gpus=bool(glob.glob("/dev/nvidia[0-9]*")),
    )
    if importlib.util.find_spec("cupy") is None:
        return node._replace(gpu_error="CuPy is not installed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about cuDNN, which is optional
            cuda.check_cuda_available()
        runtime = cuda.cupy.cuda.runtime
        gpus = tuple(_gpu(runtime, i) for i in range(runtime.getDeviceCount()))
    except RuntimeError as caught:
        return node._replace(gpu_error=" ".join(str(caught).split())[:300])
    version = runtime.runtimeGetVersion()
    nccl = f"NCCL {cuda.cupy.cuda.nccl.get_version()}" if has_nccl() else "no NCCL"
    driver = _release(runtime.driverGetVersion())
    versions = f"CUDA {_release(version)}, driver for CUDA {driver}, {nccl}"
    return node._replace(gpus=gpus, cuda=version, versions=versions)


def _gpu(runtime, index):
    properties = runtime.getDeviceProperties(index)
    return GPU(
        name=properties["name"].decode(),
        capability=10 * properties["major"] + properties["minor"],
        memory=properties["totalGlobalMem"],
    )


def _release(version):
    return f"{version // 1000}.{version % 1000 // 10}"


def check_node(node: Node, on_gpu: bool) -> Iterator[Problem]:
    """Check cores, memory and GPUs of a node.

    Args:
        node (Node): The node.
        on_gpu (bool): Whether training would compute on GPUs.

    Yields:
        Problem: What is wrong.
    """
    host, n = node.host, node.n_ranks
    if n > node.cores:
        yield warning(
            f"{host}: {n} ranks share {node.cores} cores; start fewer ranks, or let "
            "the launcher bind them to more cores",
        )
    if node.shm is not None and node.shm < n * _SHM_PER_RANK:
        yield warning(
            f"{host}: /dev/shm has {node.shm >> 20} MiB free for {n} ranks, where MPI "
            f"and NCCL exchange data; give the container {n * _SHM_PER_RANK >> 20} MiB "
            "(--shm-size) or the host's /dev/shm",
        )
    if node.gpu_error is not None and node.has_gpus:
        yield warning(
            f"{host}: there is a GPU, but Chainer can't use it: {node.gpu_error}; "
            "install the CuPy for its driver (see docs/clusters.md)",
        )
    if node.gpus and not on_gpu:
        yield warning(
            f"{host}: {len(node.gpus)} GPUs are there, but training would run on CPUs, "
            "because not every rank has a GPU; start fewer ranks, or share GPUs by "
            "--communicator staged",
        )
    old = sorted({gpu.name for gpu in node.gpus if _is_too_old(gpu, node.cuda)})
    if old:
        yield error(
            f"{host}: CUDA {node.cuda // 1000} does not compile for {', '.join(old)}; "
            "install the CuPy of an older CUDA (see docs/clusters.md)",
        )


def _is_too_old(gpu, cuda_version):
    major = cuda_version // 1000
    return any(
        major >= first and gpu.capability < low for first, low in _LOWEST_CAPABILITY
    )


def check_results(out: str) -> tuple[str, list[Problem]]:
    """Check that a directory, or the one that will contain it, can be written.

    Args:
        out (str): The directory for the results.

    Returns:
        tuple: A description, and a list of :class:`.Problem`.
    """
    path = os.path.abspath(out)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    try:
        free = shutil.disk_usage(path).free
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0")
    except OSError as caught:
        reason = f"results can't be written into {path}: {caught.strerror}"
        return "can't be written", [error(f"{reason}; choose another --out")]
    problems = []
    if free < _RESULTS:
        problems.append(
            warning(
                f"{free / 1e9:.1f} GB are free for {out}, and the snapshots of VGG16 "
                f"of full width need {_RESULTS / 1e9:g} GB; choose another --out"
            )
        )
    return f"{path}: {free / 1e9:.0f} GB free", problems
