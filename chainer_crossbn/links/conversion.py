"""Put cross-GPU batch normalization into an existing model."""

import copy
import warnings

import chainer.links as L
from chainermn.communicators.communicator_base import CommunicatorBase
from chainermn.links import MultiNodeBatchNormalization

from chainer_crossbn.links.cross_batch_normalization import CrossBatchNormalization

_REPLACED = (L.BatchNormalization, MultiNodeBatchNormalization, CrossBatchNormalization)
_LEFT_ALONE = (
    L.BatchNormalization,
    L.DecorrelatedBatchNormalization,
    MultiNodeBatchNormalization,
)


def create_cross_bn_model(link, comm):
    """Return a copy of a model that normalizes over the ranks of a communicator.

    Every :class:`chainer.links.BatchNormalization` and ChainerMN's
    ``MultiNodeBatchNormalization`` becomes a :class:`CrossBatchNormalization`, wherever
    it is among the children, and every :class:`CrossBatchNormalization`, subclasses
    included, gets the communicator. Parameters, their update rules, running statistics,
    arguments and serialized names stay. A link in several places remains one link. The
    labels of the new links tell their place in the model.

    Links of other classes are copied as they are. Those that normalize mini-batches in
    a way of their own, such as ``BatchRenormalization``,
    ``DecorrelatedBatchNormalization`` and subclasses of the links that are replaced,
    are named in a ``UserWarning``, by rank 0. Communicators that links hold are shared.

    Args:
        link (chainer.Link): Any model; it stays as it is.
        comm: ChainerMN communicator; statistics are taken over its ranks.

    Returns:
        chainer.Link: The copy.
    """
    # What a deep copy finds here stands in for the original, wherever that is.
    memo = {}
    left_alone = []
    for child in link.links():
        # Communicators hold MPI handles: they are shared, not copied.
        found = [v for v in vars(child).values() if isinstance(v, CommunicatorBase)]
        memo.update((id(v), v) for v in found)
    for path, child in link.namedlinks():
        if type(child) in _REPLACED:
            if id(child) not in memo:
                memo[id(child)] = _cross(child, comm, path, memo)
        elif isinstance(child, _LEFT_ALONE) and not isinstance(
            child, CrossBatchNormalization
        ):
            left_alone.append(f"{path} ({type(child).__name__})")
    if left_alone and getattr(comm, "rank", 0) == 0:
        warnings.warn(
            "these links are left as they are: " + ", ".join(left_alone),
            UserWarning,
            stacklevel=2,
        )
    copied = copy.deepcopy(link, memo)
    for child in copied.links():
        if isinstance(child, CrossBatchNormalization):
            child.comm = comm
    return copied


def _cross(link, comm, path, memo):
    """Return a CrossBatchNormalization that has taken over the state of a link."""
    label = None if path == "/" else f"{CrossBatchNormalization.__name__} at {path}"
    cross = CrossBatchNormalization(
        1, comm, use_gamma=False, use_beta=False, label=label
    )
    own = ("comm", "label", "_lineage", "_communication_backend")
    state = {name: value for name, value in vars(link).items() if name not in own}
    vars(cross).update(copy.deepcopy(state, memo))
    return cross
