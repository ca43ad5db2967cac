"""Interconnects: latency and bandwidth, each with its source.

The latencies of NCCL are what it chooses its algorithms by (``baseLat`` and ``hwLat``
of the protocol LL, for short messages, in microseconds).
"""

from typing import NamedTuple

NCCL = "NVIDIA/nccl src/graph/tuning.cc at b647562"
QLOGIC = (
    "1.05 us: osu_latency, 8 bytes, in QLogic's OFED+ Host Software User Guide "
    "IB6054601-00 H, appendix B, which calls it an example"
)
MEMCPY = (
    "10 us for a small cudaMemcpy: University of Virginia, Memory Transfer Overhead "
    "(GTX 280, PCIe 2); 5-7 us for a cudaMemcpyAsync: Wu et al., DualPath, "
    "arXiv:2602.21548, section 5.2"
)
TABLE_1 = "Table 1 of the paper (TSUBAME-KFC)"


class Interconnect(NamedTuple):
    """A way between ranks.

    Attributes:
        name (str): What it is called.
        hop (tuple of float): Lowest and highest latency of a round, in microseconds.
        bandwidth (float): Peak of one direction, in GB/s.
        sources (tuple of str): Where the numbers are from.
    """

    name: str
    hop: tuple
    bandwidth: float
    sources: tuple


PCIE_3 = Interconnect(
    "PCIe Gen3 x16",
    (1.0, 2.0),
    16,
    (
        f"latency: {NCCL}, PCI, tree and ring 1.0 us; twice that where a tree is gone "
        "up and down",
        f"bandwidth: {TABLE_1}",
    ),
)
NVLINK_3 = Interconnect(
    "NVLink 3",
    (0.6, 1.2),
    300,
    (
        f"latency: {NCCL}, NVLINK, tree and ring 0.6 us; twice that where a tree is "
        "gone up and down",
        "bandwidth: 600 GB/s, both directions together: NVIDIA A100 data sheet",
    ),
)
NVLINK_4 = Interconnect(
    "NVLink 4",
    NVLINK_3.hop,
    450,
    (
        NVLINK_3.sources[0],
        "bandwidth: 900 GB/s, both directions together: NVIDIA H100 data sheet",
    ),
)
FDR = Interconnect(
    "FDR InfiniBand 4X",
    (1.05, 5.0),
    6.8,
    (
        f"latency: {QLOGIC}; 5.0 us: {NCCL}, NET, tree",
        f"bandwidth: {TABLE_1}",
    ),
)
NDR = Interconnect(
    "NDR InfiniBand 4X",
    (2.7, 5.0),
    50,
    (
        f"latency: {NCCL}, NET, ring 2.7 us and tree 5.0 us",
        "bandwidth: 400 Gb/s: NVIDIA ConnectX-7 User Manual",
    ),
)


class System(NamedTuple):
    """Nodes with some ranks each, and one adapter each to what is between them.

    Attributes:
        name (str): What it is called.
        node_ranks (int): Ranks of a node.
        inside (Interconnect or None): Between the ranks of a node.
        between (Interconnect): Between nodes.
        overhead (tuple of float): Lowest and highest time that an all-reduce takes
            besides its rounds, in microseconds.
        source (str): Where the overhead is from.
    """

    name: str
    node_ranks: int
    inside: Interconnect
    between: Interconnect
    overhead: tuple
    source: str


_HOST = (0.0, 0.0), "overhead: none, as arrays are in host memory"
_NVLINK = (6.6, 6.8), f"overhead: {NCCL}, base latency, ring 6.6 us and tree 6.8 us"

SYSTEMS = (
    System("a rank a node, FDR", 1, None, FDR, *_HOST),
    System("a rank a node, NDR", 1, None, NDR, *_HOST),
    System(
        "nodes of 8, PCIe Gen3 and FDR",
        8,
        PCIE_3,
        FDR,
        (6.6, 20.0),
        f"overhead: {NCCL}, base latency, ring 6.6 us; 20 us for two copies, {MEMCPY}",
    ),
    System("nodes of 8, NVLink 3 and NDR", 8, NVLINK_3, NDR, *_NVLINK),
    System("nodes of 8, NVLink 4 and NDR", 8, NVLINK_4, NDR, *_NVLINK),
)
