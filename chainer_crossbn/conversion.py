"""Put cross-GPU batch normalization into an existing model."""

import copy
import warnings

import chainer.links as L
from chainermn.links import MultiNodeBatchNormalization

from chainer_crossbn.batch_normalization import CrossBatchNormalization

_REPLACED = (L.BatchNormalization, MultiNodeBatchNormalization, CrossBatchNormalization)
_OF_ONE_RANK = (L.BatchNormalization, L.DecorrelatedBatchNormalization)


def create_cross_bn_model(link, comm):
    """Return a copy of a model that normalizes over the ranks of a communicator.

    Every :class:`chainer.links.BatchNormalization` and ChainerMN's
    ``MultiNodeBatchNormalization`` becomes a :class:`CrossBatchNormalization`, wherever
    it is among the children, and every :class:`CrossBatchNormalization` gets the
    communicator. Parameters, their update rules, running statistics, arguments and
    serialized names stay. A link in several places remains one link. The labels of
    the new links tell their place in the model.

    Links of other classes are copied as they are. Those that normalize by statistics of
    one rank's mini-batch, such as ``BatchRenormalization``,
    ``DecorrelatedBatchNormalization`` and subclasses of ``BatchNormalization``, are
    named in a ``UserWarning``, by rank 0.

    Args:
        link (chainer.Link): Any model; it stays as it is.
        comm: ChainerMN communicator; statistics are taken over its ranks.

    Returns:
        chainer.Link: The copy.
    """
    # What a deep copy finds here stands in for the original, wherever that is.
    memo = {id(comm): comm}
    left_alone = []
    for path, child in link.namedlinks():
        if type(child) in _REPLACED:
            if id(child) not in memo:
                memo[id(child)] = _cross(child, comm, path, memo)
        elif isinstance(child, _OF_ONE_RANK):
            left_alone.append(f"{path} ({type(child).__name__})")
    if left_alone and getattr(comm, "rank", 0) == 0:
        warnings.warn(
            "these links still normalize by the mini-batch of one rank: "
            + ", ".join(left_alone),
            UserWarning,
            stacklevel=2,
        )
    return copy.deepcopy(link, memo)


def _cross(link, comm, path, memo):
    """Return a CrossBatchNormalization that has taken over the state of a link."""
    cross = CrossBatchNormalization(1, comm, use_gamma=False, use_beta=False)
    if path != "/":
        cross.label += f" at {path}"
    own = ("comm", "label", "_communication_backend")
    state = {name: value for name, value in vars(link).items() if name not in own}
    vars(cross).update(copy.deepcopy(state, memo))
    return cross
