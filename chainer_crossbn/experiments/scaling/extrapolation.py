"""The model on more ranks than there are here: not checked.

A rank computes as it does here, and its time varies as much. The all-reduce of the
normalizations goes by recursive doubling inside the nodes and between them; that of the
gradients by a reduce-scatter in the node, an all-reduce of the parts between nodes
through the node's one adapter, and an all-gather.
"""

from typing import NamedTuple

from chainer_crossbn.experiments.scaling import all_reduce, vgg16
from chainer_crossbn.experiments.scaling.interconnects import SYSTEMS
from chainer_crossbn.experiments.scaling.order_statistics import slowest

LABEL = "model, not checked here"
RANKS = tuple(2**i for i in range(4, 11))
NETWORKS = ("normal", "multigpu")
BATCHES = (2, 64)
# An assumption: the part of its peak bandwidth that an interconnect gives.
BANDWIDTH_SHARE = (1.0, 0.5)


class Extrapolated(NamedTuple):
    """Seconds of an iteration, as a range.

    Attributes:
        system (str): Name of the :class:`~.interconnects.System`.
        network (str): ``normal`` or ``multigpu``.
        batch (int): Images per rank.
        ranks (int): Number of ranks.
        low (float): With the lowest latencies, peak bandwidth and normal skew.
        high (float): With the highest latencies, half of the bandwidth, and skew with
            exponential tails.
    """

    system: str
    network: str
    batch: int
    ranks: int
    low: float
    high: float


def extrapolate(model, scale):
    """Return the times of iterations on 16 to 1024 ranks.

    Args:
        model (Model): Fitted.
        scale (Scale): What it was fitted to.

    Returns:
        list of Extrapolated: For each system, network, batch size and number of ranks.
    """
    return [
        Extrapolated(
            *(system.name, network, batch, ranks),
            *(_time(model, scale, system, network, batch, ranks, i) for i in (0, 1)),
        )
        for system in SYSTEMS
        for network in NETWORKS
        if network in model.networks
        for batch in BATCHES
        for ranks in RANKS
    ]


def _time(model, scale, system, network, batch, ranks, end):
    fitted = model.networks[network]
    nodes = ranks // system.node_ranks
    size = vgg16.message_bytes(scale.width) / vgg16.MESSAGES
    each = system.overhead[end] * 1e-6
    gradients = 0.0
    levels = [(system.inside, system.node_ranks), (system.between, nodes)]
    for link, n in levels:
        if link is None:
            continue
        bandwidth = link.bandwidth * 1e9 * BANDWIDTH_SHARE[end]
        each += all_reduce.short(n, link.hop[end] * 1e-6, size, bandwidth)
        gradients += all_reduce.long(n, fitted.gradient_bytes, bandwidth)
    return (
        fitted.compute(batch)
        + fitted.waiting(batch, slowest(ranks)[end])
        + fitted.collectives * each
        + gradients
    )
