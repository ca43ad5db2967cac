"""An iteration of VGG16 at batch size 64 on TSUBAME-KFC, as a roofline.

Table 1 of the paper: a node has 4 boards K80 (5.6 TFLOPS single, 480 GB/s, a PCIe Gen3
x16 of 16 GB/s) and an FDR InfiniBand adapter of 6.8 GB/s. A board is two CUDA devices,
which share its slot; a device has half of its arithmetic and memory bandwidth.

Times are in seconds. Parameters are numbers or arrays of one shape, so that many
choices of them are evaluated at once.
"""

from typing import NamedTuple

import numpy as np

from chainer_crossbn.experiments.scaling import all_reduce, interconnects, vgg16
from chainer_crossbn.experiments.scaling.order_statistics import slowest

BATCH = 64
BOARDS_PER_NODE = 4
DEVICE_FLOPS = 5.6e12 / 2
DEVICE_MEMORY = 480e9 / 2

# Passes over the values of a layer and kernels, forward and backward together.
#
# Fused, as cuDNN's: moments (read), normalize (read, write); sums (read x and gy),
# gradient (read both, write).
FUSED = 8, 4
# The algorithm as written, a kernel an operation (paper_batch_normalization.py):
# forward mean 1, x*x 2, its mean 1, - 2, * 2, * 2, + 2; backward - 2, * 2, sum 1, * 3,
# sum 1, - 2, * 2, - 3, * 2. With them come 22 kernels on one value a channel: appended
# counts 2, averages 4 + 4, variance to inverse deviation 5, running statistics 4,
# local means 2, gamma / sigma 1.
WRITTEN = 30, 16 + 22
# Without normalization a convolution adds a bias (read, write) and sums its gradient.
BIAS = 3, 2
_RELU_PASSES = 5
_POOLING_PASSES = 4  # of the maps that are pooled, which are 4 times those made
_UPDATE_PASSES = 8  # of the parameters: weight decay 3, momentum SGD 5
_SEGMENTS = 26  # between the normalizations, forward and backward


class Parameter(NamedTuple):
    """What is not known of the machine or of the program.

    Attributes:
        name (str): Its name.
        low (float): Its range.
        high (float): Likewise.
        source (str): Where that is from.
    """

    name: str
    low: float
    high: float
    source: str


def _measured_efficiency():
    """Return what TensorFlow reached on a device, as a share of Table 1's FLOPS.

    36.3 images a second of 224x224, VGG16 with 1000 classes at batch size 32, Amazon
    EC2 p2.8xlarge. It is above 1, as auto boost raises the clock and cuDNN saves
    multiplications.
    """
    return 36.3 * vgg16.step_flops(64, 4096, 1000, 224) / DEVICE_FLOPS


def parameters(relative_skew):
    """Return all that is assumed.

    Args:
        relative_skew (tuple of float): Lowest and highest standard deviation of what a
            rank computes between two collectives, as a share of its mean.

    Returns:
        tuple of Parameter: Their names are those that :func:`iteration` takes.
    """
    return (
        Parameter(
            "efficiency",
            0.25,
            _measured_efficiency(),
            "low: assumption, for maps of 2x2 to 32x32; high: 36.3 images/s of VGG16 "
            "on a K80 device, tensorflow/docs_src/performance/benchmarks.md",
        ),
        Parameter("memory", 0.5, 0.85, "share of memory bandwidth: assumption"),
        Parameter(
            "written",
            0,
            1,
            "0: normalBN is fused, as by cuDNN, 1: it has a kernel an operation",
        ),
        Parameter(
            "rewritten",
            0,
            1,
            "0: multigpuBN's arithmetic is that of normalBN, 1: a kernel an operation",
        ),
        Parameter(
            "launch",
            3e-6,
            10e-6,
            "of a kernel; low: 334,000 launches a second, University of Virginia, CUDA "
            "Kernel Overhead; high: assumption",
        ),
        Parameter(
            "synchronize",
            6e-6,
            20e-6,
            "until the device is idle, and busy again; low: what a synchronous launch "
            "takes more, two thirds of it, University of Virginia, CUDA Kernel "
            "Overhead; high: assumption",
        ),
        Parameter("copy", 5e-6, 10e-6, f"of a small vector: {interconnects.MEMCPY}"),
        Parameter(
            "inside",
            0.3e-6,
            1.0e-6,
            "MPI between ranks of a node; low: osu_latency in kokkos/kokkos-comm "
            f"#104; high: {interconnects.NCCL}, PCI",
        ),
        Parameter(
            "between",
            interconnects.FDR.hop[0] * 1e-6,
            interconnects.FDR.hop[1] * 1e-6,
            f"MPI between nodes; {interconnects.FDR.sources[0]}",
        ),
        Parameter(
            "link", 0.5, 1.0, "share of PCIe and InfiniBand bandwidth: assumption"
        ),
        Parameter(
            "staged", 0, 1, "1: gradients go through host memory, 0: they do not"
        ),
        Parameter("skew", *relative_skew, "measured in the profiles; assumed for GPUs"),
        Parameter("tails", 0, 1, "of the skew; 0: normal, 1: exponential"),
    )


class Layout(NamedTuple):
    """Where the ranks are.

    Attributes:
        gpus (int): CUDA devices, a rank each.
        nodes (int): Nodes.
        dies (int): Devices of a board that have ranks, 1 or 2.
    """

    gpus: int
    nodes: int
    dies: int

    @property
    def per_node(self):
        """Ranks of a node."""
        return self.gpus // self.nodes


class Variant(NamedTuple):
    """The paper's algorithm, in what it does not say.

    Attributes:
        n_allreduces (int): All-reduces of a normalization in one direction, 1 or 2.
        backward (str): ``exact``, with all-reduces, too, or ``local``.
    """

    n_allreduces: int
    backward: str


LAYOUTS = tuple(
    Layout(gpus, nodes, dies)
    for gpus in (2, 4, 8, 16)
    for nodes in (1, 2)
    for dies in (1, 2)
    if gpus % (nodes * dies) == 0 and gpus // nodes <= BOARDS_PER_NODE * dies
)
VARIANTS = tuple(Variant(n, how) for n in (1, 2) for how in ("exact", "local"))


class Iteration(NamedTuple):
    """Seconds of an iteration of the three networks, and of what multigpuBN adds.

    Attributes:
        none, normal, multigpu: The networks.
        arithmetic: What multigpuBN takes more than normalBN: arithmetic.
        transfer: Synchronizing, copies and all-reduces.
        waiting: For the slowest rank.
        once: What normalBN waits for the slowest rank, in the gradients' all-reduce.
        collectives (int): All-reduces that multigpuBN makes.
    """

    none: float
    normal: float
    multigpu: float
    arithmetic: float
    transfer: float
    waiting: float
    once: float
    collectives: int


def iteration(layout, variant, values):
    """Return what an iteration takes.

    Args:
        layout (Layout): Where the ranks are.
        variant (Variant): Which algorithm.
        values (dict): Name of a parameter -> number or array.

    Returns:
        Iteration: Numbers or arrays.
    """
    p = values
    computing = BATCH * vgg16.step_flops() / (p["efficiency"] * DEVICE_FLOPS) + _rest(p)
    network = computing + _gradients(layout, p)
    fused, written = _passes(*FUSED, p), _passes(*WRITTEN, p)
    local = fused + p["written"] * (written - fused)
    arithmetic = p["rewritten"] * (written - local)
    # Ranks meet at each normalization; without, once.
    segment = p["skew"] * (computing + local) / _SEGMENTS
    normal_tails, heavy_tails = slowest(layout.gpus)
    late = segment * (normal_tails + p["tails"] * (heavy_tails - normal_tails))
    once = late * _SEGMENTS**0.5
    exact = variant.backward == "exact"
    half = _SEGMENTS / 2
    waiting = late * (_SEGMENTS if exact else half + half**0.5) - once
    count = variant.n_allreduces * _SEGMENTS // (1 if exact else 2)
    transfer = count * _small_all_reduce(layout, p)
    normal = network + local + once
    return Iteration(
        none=network + _passes(*BIAS, p) + once,
        normal=normal,
        multigpu=normal + arithmetic + transfer + waiting,
        arithmetic=arithmetic,
        transfer=transfer,
        waiting=waiting,
        once=once,
        collectives=count,
    )


def _passes(passes, kernels, p):
    """Return the time of kernels after each convolution; a launch each at least."""
    return sum(
        np.maximum(
            kernels * p["launch"],
            passes * 4 * BATCH * layer.values / (p["memory"] * DEVICE_MEMORY),
        )
        for layer in vgg16.convolutions()
    )


def _rest(p):
    """Return the time of ReLU, pooling and update."""
    values = sum(
        BATCH * layer.values * (_RELU_PASSES + (_POOLING_PASSES if layer.last else 0))
        for layer in vgg16.convolutions()
    )
    values += _UPDATE_PASSES * vgg16.parameters()
    return 4 * values / (p["memory"] * DEVICE_MEMORY)


def _gradients(layout, p):
    size = 4 * vgg16.parameters()
    slot = interconnects.PCIE_3.bandwidth * 1e9 * p["link"] / layout.dies
    adapter = interconnects.FDR.bandwidth * 1e9 * p["link"]
    return (
        all_reduce.long(layout.per_node, size, slot)
        + all_reduce.long(layout.nodes, size, adapter)
        + p["staged"] * 2 * size / slot
    )


def _small_all_reduce(layout, p):
    mpi = all_reduce.short(layout.per_node, p["inside"]) + all_reduce.short(
        layout.nodes, p["between"]
    )
    return p["synchronize"] + 2 * p["copy"] + mpi
