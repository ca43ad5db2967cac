"""The time of an iteration: compute, skew, latency and bandwidth.

A rank computes C(b) = c0 + c1 b for b images. On P ranks that have a core each, the
collectives of the normalizations add, each, ⌈log2 P⌉ rounds of a latency α, and waiting
for the slowest rank: σ(b) E[max of P standard normals], where σ is the standard
deviation of what a rank computes since the collective before. The all-reduce of the
gradients adds its transfer, 2 (P-1)/P of its bytes at a bandwidth, and waiting in the
same manner. Of two ranks E[max] is 1/√π, which is how σ is found from their mean wait.

Where more ranks than cores take turns, an iteration takes P / cores times as long as
each rank's own part, where computing takes a factor f more, as caches are shared, and
each collective a time g until all ranks have had a core.
"""

import math
from typing import NamedTuple

import numpy as np

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.scaling import all_reduce
from chainer_crossbn.experiments.scaling.order_statistics import normal_maximum
from chainer_crossbn.plotting import networks


class Line(NamedTuple):
    """A time that grows with the batch size: ``fixed + per_image * b`` seconds."""

    fixed: float
    per_image: float

    def __call__(self, batch):
        """Return the time for a batch size."""
        return self.fixed + self.per_image * batch

    @classmethod
    def fit(cls, batches, times):
        """Fit times by :func:`_fit_two`.

        Args:
            batches (list of int): Batch sizes, two different ones at least.
            times (list of float): Seconds.
        """
        x = np.array(batches, np.float64)
        return cls(*_fit_two(np.stack([np.ones_like(x), x], axis=1), np.array(times)))


class Network(NamedTuple):
    """What was fitted of a network, in seconds.

    Attributes:
        compute (Line): What a rank does by itself in an iteration.
        collectives (int): All-reduces of its normalizations.
        latency (float): α, of one of them on two ranks.
        skew (Line): σ of a rank's computing between two of them.
        last_skew (Line): σ of that before the all-reduce of the gradients.
        gradient_bytes (int): Size of the gradients.
        batches (tuple of int): The batch sizes that it was fitted to.
    """

    compute: Line
    collectives: int
    latency: float
    skew: Line
    last_skew: Line
    gradient_bytes: int
    batches: tuple

    def relative_skew(self, batch):
        """Return σ as a share of the mean computing between two collectives."""
        return self.skew(batch) * self.collectives / self.compute(batch)

    def waiting(self, batch, maximum):
        """Return the seconds that a rank waits for others in an iteration.

        Args:
            batch (int): Images per rank.
            maximum (float): Expected maximum of the ranks, of mean 0 and deviation 1.
        """
        each = self.collectives * self.skew(batch) + self.last_skew(batch)
        return maximum * each


class Oversubscription(NamedTuple):
    """What sharing cores costs.

    Attributes:
        ranks (int): On how many ranks it was fitted.
        factor (float): f, of computing.
        turn (float): g, seconds of a collective for each rank of a core.
    """

    ranks: int
    factor: float
    turn: float


class Model(NamedTuple):
    """A fitted model.

    Attributes:
        cores (int): Cores of the machine.
        threads (int): BLAS threads per rank.
        bandwidth (float): Bytes per second of the gradients' all-reduce.
        networks (dict): Name of a network -> :class:`Network`.
        oversubscription (Oversubscription or None): Where there are such runs.
    """

    cores: int
    threads: int
    bandwidth: float
    networks: dict
    oversubscription: Oversubscription

    def predict(self, network, batch, ranks):
        """Return the seconds of an iteration on this machine.

        Args:
            network (str): One of :attr:`networks`.
            batch (int): Images per rank.
            ranks (int): More than :attr:`cores` only with :attr:`oversubscription`.
        """
        found = self.networks[network]
        gradients = self.gradients(network, ranks)
        if ranks > self.cores:
            _, factor, turn = self.oversubscription
            turns = factor * found.compute(batch) + turn * found.collectives
            return ranks / self.cores * turns + gradients
        return (
            found.compute(batch)
            + found.waiting(batch, normal_maximum(ranks))
            + found.collectives * all_reduce.short(ranks, found.latency)
            + gradients
        )

    def gradients(self, network, ranks):
        """Return the seconds that the all-reduce of a network's gradients takes."""
        size = self.networks[network].gradient_bytes
        return all_reduce.long(ranks, size, self.bandwidth)


def fit(observations, scale):
    """Fit the model to runs of one scale.

    Runs of two ranks give all but the oversubscription, which the runs of most ranks
    give, if these are more than the cores.

    Args:
        observations (list of Observation): Measured.
        scale (Scale): What they share.

    Returns:
        Model: Of the networks that have two batch sizes on two ranks.

    Raises:
        UsageError: If there are too few runs, or too few cores.
    """
    if scale.cores < 2:
        raise UsageError("the runs had one core; two ranks need one each to be fitted")
    pairs = [seen for seen in observations if seen.ranks == 2]
    if not pairs:
        raise UsageError("no profiled run of 2 ranks, which the model is fitted to")
    threads = {seen.threads for seen in pairs}
    if len(threads) > 1:
        raise UsageError("the runs of 2 ranks differ in --threads")
    by_network = {}
    for seen in pairs:
        by_network.setdefault(seen.network, []).append(seen)
    fitted = {
        network: _fit_network(members, scale)
        for network, members in sorted(by_network.items(), key=_order)
        if len({seen.batch for seen in members}) > 1
    }
    if not fitted:
        raise UsageError("no network has runs of 2 ranks at two batch sizes")
    usable = [seen for seen in pairs if seen.network in fitted]
    seconds = np.mean([seen.transfer for seen in usable])
    if not seconds > 0:
        raise UsageError("the runs of 2 ranks tell no time of the gradients' transfer")
    size = np.mean([scale.gradient_bytes(seen.network) for seen in usable])
    model = Model(scale.cores, threads.pop(), float(size / seconds), fitted, None)
    return model._replace(oversubscription=_fit_sharing(observations, model))


def comparable(model, seen):
    """Tell whether a model can predict a run."""
    shares = seen.ranks > model.cores
    known = seen.network in model.networks and seen.threads == model.threads
    return known and not (shares and model.oversubscription is None)


def _order(item):
    return networks.rank(item[0])


def _fit_network(members, scale):
    batches = [seen.batch for seen in members]
    count = members[0].collectives
    # Two ranks wait σ/√π on average, and make one round.
    between = [
        seen.bn_wait / count * math.sqrt(math.pi) if count else 0.0 for seen in members
    ]
    last = [seen.wait * math.sqrt(math.pi) for seen in members]
    transfer = np.mean([seen.bn_transfer for seen in members])
    return Network(
        compute=Line.fit(batches, [seen.compute for seen in members]),
        collectives=count,
        latency=float(transfer / count) if count else 0.0,
        skew=Line.fit(batches, between),
        last_skew=Line.fit(batches, last),
        gradient_bytes=scale.gradient_bytes(members[0].network),
        batches=tuple(sorted(set(batches))),
    )


def _fit_sharing(observations, model):
    """Fit f and g to the runs of most ranks; relative errors count."""
    most = max(seen.ranks for seen in observations)
    if most <= model.cores:
        return None
    rows, times = [], []
    for seen in observations:
        network = model.networks.get(seen.network)
        if seen.ranks == most and network and seen.threads == model.threads:
            share = most / model.cores
            rows.append(
                (share * network.compute(seen.batch), share * network.collectives)
            )
            times.append(max(0.0, seen.time - model.gradients(seen.network, most)))
    if not rows:
        return None
    return Oversubscription(most, *_fit_two(np.array(rows), np.array(times)))


def _fit_two(columns, times):
    """Fit two coefficients by least squares of relative errors, neither negative.

    Args:
        columns: float64 array of shape (n, 2), what the coefficients are multiplied by.
            Where it can't tell them apart, the first takes all.
        times: float64 array of shape (n,), at least 0.

    Returns:
        list of float: The coefficients.
    """
    if not times.any():
        return [0.0, 0.0]
    scale = np.maximum(times, 1e-3 * times.max())
    columns, targets = columns / scale[:, None], times / scale
    if np.linalg.matrix_rank(columns) < 2:
        first = columns[:, 0]
        return [float(targets @ first / (first @ first)), 0.0]
    best = np.linalg.lstsq(columns, targets, rcond=None)[0]
    if best.min() < 0:
        # The optimum lies where one coefficient is 0.
        ends = np.diag(targets @ columns / (columns**2).sum(axis=0))
        errors = ((columns @ ends - targets[:, None]) ** 2).sum(axis=0)
        best = ends[errors.argmin()]
    return best.tolist()
