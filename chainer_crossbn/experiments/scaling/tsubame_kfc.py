"""A roofline model of an iteration of VGG16 at batch size 64 on TSUBAME-KFC.

Table 1 of the paper: a node has 4 K80 boards (5.6 TFLOPS single precision, 480 GB/s,
PCIe Gen3 x16 with 16 GB/s) and an FDR InfiniBand adapter with 6.8 GB/s. A board is two
CUDA devices, which share its slot. Each has half of its arithmetic and memory
bandwidth.

All-reduces take the times of Thakur, Rabenseifner and Gropp, "Optimization of
collective communication operations in MPICH" (2005): recursive doubling for short
vectors, a reduce-scatter and an all-gather for long ones.

Times are in seconds. Parameters are numbers or arrays of one shape, so that many
choices of them are evaluated together.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from chainer_crossbn.experiments.scaling import vgg16
from chainer_crossbn.experiments.scaling.skew import exponential_maximum, normal_maximum

_BATCH = 64
_BOARDS_PER_NODE = 4
_DEVICE_FLOPS = 5.6e12 / 2
_DEVICE_MEMORY = 480e9 / 2
_SLOT_BANDWIDTH = 16e9
_ADAPTER_BANDWIDTH = 6.8e9

# Pairs of passes over the values of a layer and kernels, forward and backward together.
#
# Fused, as in cuDNN: moments (read), normalize (read, write); sums (read x and gy),
# gradient (read both, write).
_FUSED = 8, 4
# The algorithm as written, with a kernel per operation (paper_batch_normalization.py):
# forward mean 1, x*x 2, its mean 1, - 2, * 2, * 2, + 2; backward - 2, * 2, sum 1, * 3,
# sum 1, - 2, * 2, - 3, * 2. In addition, 22 kernels on one value per channel: appended
# counts 2, averages 4 + 4, variance to inverse deviation 5, running statistics 4,
# local means 2, gamma / sigma 1.
_WRITTEN = 30, 16 + 22
# Without normalization a convolution adds a bias (read, write) and sums its gradient.
_BIAS = 3, 2
_RELU_PASSES = 5
_POOLING_PASSES = 4  # over the maps that are pooled
_UPDATE_PASSES = 8  # over the parameters: weight decay 3, momentum SGD 5
_SEGMENTS = 26  # between the normalizations, forward and backward

_NCCL = "NVIDIA/nccl src/graph/tuning.cc at b647562"
_VIRGINIA = "University of Virginia, CUDA Kernel Overhead"


class Parameter(NamedTuple):
    """An unknown quantity of the machine or of the paper's program.

    Attributes:
        name (str): Its name.
        low (float): Lower end of its range.
        high (float): Upper end of its range.
        source (str): Source of the range.
    """

    name: str
    low: float
    high: float
    source: str


_ASSUMED = (
    Parameter("memory", 0.5, 0.85, "share of memory bandwidth: assumption"),
    Parameter(
        "written",
        0,
        1,
        "0: normalBN is fused, as in cuDNN; 1: it has a kernel per operation",
    ),
    Parameter(
        "rewritten",
        0,
        1,
        "0: multigpuBN has the arithmetic of normalBN; 1: a kernel per operation",
    ),
    Parameter(
        "launch",
        3e-6,
        10e-6,
        f"of a kernel; low: 334,000 launches per second, {_VIRGINIA}; high: assumption",
    ),
    Parameter(
        "synchronize",
        6e-6,
        20e-6,
        "until the device is idle, and busy again; low: two thirds of what a "
        f"synchronous launch takes in addition, {_VIRGINIA}; high: assumption",
    ),
    Parameter(
        "copy",
        5e-6,
        10e-6,
        "of a small vector; low: 5-7 us for a cudaMemcpyAsync: Wu et al., DualPath, "
        "arXiv:2602.21548, section 5.2; high: 10 us for a small cudaMemcpy: "
        "University of Virginia, Memory Transfer Overhead (GTX 280, PCIe 2)",
    ),
    Parameter(
        "inside",
        0.3e-6,
        1.0e-6,
        "MPI between ranks of a node; low: osu_latency in kokkos/kokkos-comm #104; "
        f"high: {_NCCL}, PCI",
    ),
    Parameter(
        "between",
        1.05e-6,
        5e-6,
        "MPI between nodes over FDR InfiniBand; low: osu_latency, 8 bytes, in "
        "QLogic's OFED+ Host Software User Guide IB6054601-00 H, appendix B, which "
        f"calls it an example; high: {_NCCL}, NET, tree",
    ),
    Parameter("link", 0.5, 1.0, "share of PCIe and InfiniBand bandwidth: assumption"),
    Parameter("staged", 0, 1, "1: gradients pass through host memory, 0: they do not"),
)


def parameters(relative_skew: float) -> tuple[Parameter, ...]:
    """Return all parameters, whose names :func:`iteration` uses.

    Args:
        relative_skew (float): Highest value of the relative skew
            (:func:`.skew.relative_skew`).
    """
    efficiency = Parameter(
        "efficiency",
        0.25,
        _measured_efficiency(),
        "low: assumption, for maps of 2x2 to 32x32; high: 36.3 images/s of VGG16 on a "
        "K80 device, tensorflow/docs_src/performance/benchmarks.md",
    )
    skew = Parameter(
        "skew", 0.0, relative_skew, "high: measured on CPUs, assumed for GPUs"
    )
    tails = Parameter("tails", 0, 1, "of the skew; 0: normal, 1: exponential")
    return (efficiency, *_ASSUMED, skew, tails)


def _measured_efficiency():
    """Return the throughput of TensorFlow on a device, as a share of Table 1's FLOPS.

    36.3 images per second of 224x224, VGG16 with 1000 classes at batch size 32, Amazon
    EC2 p2.8xlarge. It is above 1, because auto boost raises the clock and cuDNN saves
    multiplications.
    """
    return 36.3 * vgg16.step_flops(n_class=1000, side=224) / _DEVICE_FLOPS


class Layout(NamedTuple):
    """Placement of the ranks.

    Attributes:
        gpus (int): CUDA devices, one per rank.
        nodes (int): Nodes.
        dies (int): Devices per board that have ranks, 1 or 2.
    """

    gpus: int
    nodes: int
    dies: int

    @property
    def per_node(self) -> int:
        """Ranks per node."""
        return self.gpus // self.nodes


class Variant(NamedTuple):
    """What the paper leaves open about its algorithm.

    Attributes:
        n_allreduces (int): All-reduces of a normalization in one direction, 1 or 2.
        backward (str): ``exact``, which has all-reduces too, or ``local``.
    """

    n_allreduces: int
    backward: str


LAYOUTS = tuple(
    Layout(gpus, nodes, dies)
    for gpus in (2, 4, 8, 16)
    for nodes in (1, 2)
    for dies in (1, 2)
    if gpus % (nodes * dies) == 0 and gpus // nodes <= _BOARDS_PER_NODE * dies
)
VARIANTS = tuple(Variant(n, how) for n in (1, 2) for how in ("exact", "local"))


class Iteration(NamedTuple):
    """Seconds of an iteration of the three networks; numbers or arrays.

    Attributes:
        none, normal, multigpu: The networks.
        arithmetic, transfer, waiting: The parts that multigpuBN adds to normalBN:
            arithmetic; synchronizing the device, copies and all-reduces; waiting for
            the slowest rank.
        once: What normalBN waits for the slowest rank, in the gradients' all-reduce.
        collectives (int): All-reduces that multigpuBN makes.
    """

    none: Any
    normal: Any
    multigpu: Any
    arithmetic: Any
    transfer: Any
    waiting: Any
    once: Any
    collectives: int


def iteration(layout: Layout, variant: Variant, values: dict[str, Any]) -> Iteration:
    """Return the times of an iteration.

    Args:
        layout (Layout): Placement of the ranks.
        variant (Variant): Variant of the algorithm.
        values (dict): Name of a parameter -> number or array.

    Returns:
        Iteration: Numbers or arrays.
    """
    p = values
    flops = _BATCH * vgg16.step_flops()
    computing = flops / (p["efficiency"] * _DEVICE_FLOPS) + _rest(p)
    network = computing + _gradients(layout, p)
    fused, written = _passes(*_FUSED, p), _passes(*_WRITTEN, p)
    local = fused + p["written"] * (written - fused)
    arithmetic = p["rewritten"] * (written - local)
    # Ranks wait for each other at each normalization; without these, once.
    segment = p["skew"] * (computing + local) / _SEGMENTS
    normal_late = normal_maximum(layout.gpus)
    heavy_late = exponential_maximum(layout.gpus)
    late = segment * (normal_late + p["tails"] * (heavy_late - normal_late))
    once = late * _SEGMENTS**0.5
    exact = variant.backward == "exact"
    half = _SEGMENTS / 2
    waiting = late * (_SEGMENTS if exact else half + half**0.5) - once
    count = variant.n_allreduces * _SEGMENTS // (1 if exact else 2)
    transfer = count * _small_all_reduce(layout, p)
    normal = network + local + once
    return Iteration(
        none=network + _passes(*_BIAS, p) + once,
        normal=normal,
        multigpu=normal + arithmetic + transfer + waiting,
        arithmetic=arithmetic,
        transfer=transfer,
        waiting=waiting,
        once=once,
        collectives=count,
    )


@functools.cache
def _convolutions():
    return tuple(vgg16.convolutions())


def _passes(passes, kernels, p):
    """Return the time of kernels after each convolution, at least that of launches."""
    return sum(
        np.maximum(
            kernels * p["launch"],
            passes * 4 * _BATCH * layer.values / (p["memory"] * _DEVICE_MEMORY),
        )
        for layer in _convolutions()
    )


def _rest(p):
    """Return the time of ReLU, pooling and update."""
    values = sum(
        _BATCH * layer.values * (_RELU_PASSES + _POOLING_PASSES * layer.pooled)
        for layer in _convolutions()
    )
    values += _UPDATE_PASSES * vgg16.parameters()
    return 4 * values / (p["memory"] * _DEVICE_MEMORY)


def _gradients(layout, p):
    """Return the time of the gradients' all-reduce: 2(n-1)/n of them pass each rank."""
    size = 4 * vgg16.parameters()
    slot = _SLOT_BANDWIDTH * p["link"] / layout.dies
    adapter = _ADAPTER_BANDWIDTH * p["link"]
    return (
        2 * (layout.per_node - 1) / layout.per_node * size / slot
        + 2 * (layout.nodes - 1) / layout.nodes * size / adapter
        + p["staged"] * 2 * size / slot
    )


def _small_all_reduce(layout, p):
    """Return the time of a normalization's all-reduce, by recursive doubling."""
    inside = math.ceil(math.log2(layout.per_node)) * p["inside"]
    between = math.ceil(math.log2(layout.nodes)) * p["between"]
    return p["synchronize"] + 2 * p["copy"] + (inside + between)
