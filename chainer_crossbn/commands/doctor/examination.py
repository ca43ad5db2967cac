"""The examination that all ranks make together, and its screen."""

import collections
import importlib.metadata
import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy
from chainer.backend import Device
from mpi4py import MPI

from chainer_crossbn import collectives, communicators
from chainer_crossbn.commands.doctor import measurements, nodes
from chainer_crossbn.commands.doctor.measurements import LARGE, SMALL
from chainer_crossbn.commands.doctor.nodes import Node
from chainer_crossbn.commands.doctor.problems import (
    Problem,
    error,
    exit_status,
    warning,
)
from chainer_crossbn.commands.train import alike, description, devices
from chainer_crossbn.errors import CollectiveError, UsageError
from chainer_crossbn.text_tables import aligned

_TOLERANCE = 1e-5  # rounding in float32
# An all-reduce of a few bytes takes microseconds in a node, tens of them between nodes.
_SLOW_SECONDS = 1e-3
_ALL_REDUCES = 26  # per step of VGG16
_VERDICTS = (
    "ready for training",
    "training can run; see the warnings",
    "training can't run; see the errors",
)


def mpi_library() -> str:
    """Return the name and version of the MPI library."""
    return " ".join(MPI.Get_library_version().strip("\0 \n").splitlines()[0].split())


def examine(out: str, announce: Callable[[str], None]) -> int:
    """Examine the machine, and print the screen on rank 0.

    Args:
        out (str): The directory for the results.
        announce (callable): Takes a description of what comes next.

    Returns:
        int: Exit status, the same on all ranks.
    """
    world = MPI.COMM_WORLD
    announce("the first exchange of messages")
    world.Barrier()
    node_comm = world.Split_type(MPI.COMM_TYPE_SHARED)
    node = nodes.inspect(node_comm.size, devices.count_cores(node_comm))
    gathered = world.allgather(node if node_comm.rank == 0 else None)
    all_nodes = [each for each in gathered if each is not None]
    # The choices of train_cifar.py, by the same functions.
    choice = Namespace(gpu=False, cpu=False, communicator=None)
    device, reason = devices.choose(choice, world, node_comm)
    on_gpu = device.xp is not numpy
    problems = [p for each in all_nodes for p in nodes.check_node(each, on_gpu)]
    sections = {
        "versions": _versions(device),
        "ranks": describe_nodes(all_nodes),
        "GPUs": _describe_gpus(all_nodes[0]),
        "training": [
            f"device {device.name}: {reason}",
            f"gradients by the communicator {choice.communicator}",
        ],
    }
    try:
        alike.check_alike(world, [])
        collectives.timeout()
        device.use()
        collective = collectives.choose(world, on_gpu=on_gpu)
        sections["training"].append(f"statistics by {collective}")
        if exit_status(problems) < 2:
            comm = communicators.create(choice.communicator, world)
            measured, new_problems = _measure(comm, device, announce)
            sections.update(measured)
            problems += new_problems
    except (UsageError, ValueError, CollectiveError) as caught:
        problems.append(error(str(caught)))
    announce("the end")
    status = 0
    if world.rank == 0:
        results, disk_problems = nodes.check_results(out)
        sections["results"] = [results]
        problems += disk_problems
        status = exit_status(problems)
        print(_render(sections, problems), flush=True)
    return world.bcast(status)


def _measure(
    comm: Any, device: Device, announce: Callable[[str], None]
) -> tuple[dict[str, list[str]], list[Problem]]:
    """Check the normalization and time all-reduces; return sections and problems."""
    problems = []
    announce("a cross-GPU batch normalization")
    deviation = measurements.normalization_error(comm, device)
    sections = {"cross-GPU BN": [f"relative error {deviation:.1e}"]}
    if not deviation <= _TOLERANCE:  # or NaN
        problems.append(
            error(
                "cross-GPU batch normalization is wrong, with a relative error of "
                f"{deviation:.1e}; do not train, and try another "
                "CHAINER_CROSSBN_COLLECTIVE (see docs/clusters.md)"
            )
        )
    if comm.size == 1:
        return {**sections, "all-reduce": ["none, with one rank"]}, problems
    announce("the all-reduces")
    small, large = measurements.all_reduce_seconds(comm, device)
    if small > _SLOW_SECONDS:
        problems.append(
            warning(
                f"an all-reduce of {SMALL} bytes takes {1e3 * small:.1f} ms, and a "
                f"step of VGG16 makes {_ALL_REDUCES}: stop other programs (load "
                f"average {os.getloadavg()[0]:.1f}), start fewer ranks, or choose a "
                "faster network interface (see docs/clusters.md)"
            )
        )
    rows = [
        (f"{SMALL} B", f"{1e6 * small:.1f} us", "statistics"),
        (
            f"{LARGE >> 20} MiB",
            f"{1e6 * large:.1f} us",
            f"gradients, {LARGE / large / 1e9:.3f} GB/s",
        ),
    ]
    return {**sections, "all-reduce": aligned(rows, left=(2,)).splitlines()}, problems


def describe_nodes(all_nodes: list[Node]) -> list[str]:
    """Describe nodes in lines, one for those that are alike."""
    kinds = collections.defaultdict(list)
    for node in all_nodes:
        kind = (
            f"{_count(node.n_ranks, 'rank')}, {_count(node.cores, 'core')}, "
            f"{_count(node.threads, 'thread')} per rank, "
            f"{_count(len(node.gpus), 'GPU')}"
        )
        kinds[kind].append(node.host)
    n_ranks = sum(node.n_ranks for node in all_nodes)
    lines = [f"{n_ranks} on {_count(len(all_nodes), 'node')}"]
    for kind, hosts in kinds.items():
        more = f", ... ({len(hosts)} nodes)" if len(hosts) > 3 else ""
        lines.append(f"{', '.join(hosts[:3])}{more}: {kind}")
    return lines


def _describe_gpus(node):
    if node.gpu_error is not None:
        return [f"none that Chainer can use: {node.gpu_error}"]
    lines = [node.versions]
    for gpu, n in collections.Counter(node.gpus).items():
        capability = f"{gpu.capability // 10}.{gpu.capability % 10}"
        lines.append(f"{n} x {gpu.name} ({capability}, {gpu.memory / 2**30:.1f} GiB)")
    return lines


def _versions(device):
    versions = description.versions_of(device)
    del versions["mpi"]
    for package in ("numba", "mpi4py"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [text, mpi_library()]


def _render(sections, problems):
    rows = [
        (label if index == 0 else "", line)
        for label, lines in sections.items()
        for index, line in enumerate(lines)
    ]
    lines = [aligned(rows, left=(0, 1))]
    lines += map(str, problems)
    lines.append(f"doctor: {_VERDICTS[exit_status(problems)]}")
    return "\n".join(lines)


def _count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
