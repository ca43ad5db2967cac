"""Put cross-GPU batch normalization into an existing model."""

from __future__ import annotations

import contextlib
import copy
import types
import warnings

import chainer
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


def create_cross_bn_model(link: chainer.Link, comm: CommunicatorBase) -> chainer.Link:
    """Return a copy of a model that normalizes over the ranks of a communicator.

    Every :class:`chainer.links.BatchNormalization` and ChainerMN's
    ``MultiNodeBatchNormalization`` becomes a :class:`CrossBatchNormalization`, wherever
    it is among the children, and every :class:`CrossBatchNormalization`, including its
    subclasses, gets the communicator. Parameters, their update rules, running
    statistics, arguments and serialized names stay. A link in several places remains
    one link. The labels of the new links contain their paths in the model.

    Links of other classes are copied unchanged. Those that normalize mini-batches in
    another way, such as ``BatchRenormalization``, ``DecorrelatedBatchNormalization``
    and subclasses of the replaced links, are listed in a warning. So are
    functions in attributes that hold links of the model in closures or defaults, as
    they go on using the original's links. Copies share the communicators that links
    hold.

    Args:
        link (chainer.Link): Any model, which is not changed.
        comm: ChainerMN communicator; statistics are taken over its ranks.

    Returns:
        chainer.Link: The copy.

    Warns:
        UserWarning: On rank 0, if links that normalize mini-batches are not replaced.

    Example:
        >>> from chainer_crossbn import create_cross_bn_model
        >>> import chainer
        >>> import chainer.links as L
        >>> import chainermn
        >>> comm = chainermn.create_communicator("naive")
        >>> model = chainer.Sequential(L.Linear(3, 2), L.BatchNormalization(2))
        >>> [type(link).__name__ for link in create_cross_bn_model(model, comm)]
        ['Linear', 'CrossBatchNormalization']
    """
    # A deep copy takes from the memo what replaces an object.
    memo = {}
    left_alone = _links_of_functions(link)
    for child in link.links():
        # Communicators hold MPI handles: they are shared, not copied.
        for value in vars(child).values():
            if isinstance(value, CommunicatorBase):
                memo[id(value)] = value
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
    # Chainer refuses to pickle, and so to copy deeply, a Sequential with a lambda.
    sequentials = [c for c in link.links() if isinstance(c, chainer.Sequential)]
    for child in sequentials:
        memo[id(child)] = type(child).__new__(type(child))
    for child in sequentials:
        vars(memo[id(child)]).update(copy.deepcopy(vars(child), memo))
    copied = copy.deepcopy(link, memo)
    for child in copied.links():
        if isinstance(child, CrossBatchNormalization):
            child.comm = comm
    return copied


def _links_of_functions(model):
    """Return descriptions of functions that go on using links of the original."""
    members = {id(child) for child in model.links()}
    return [
        f"{path.rstrip('/')}/{name} (a function that uses links of the original)"
        for path, child in model.namedlinks()
        for name, value in vars(child).items()
        for function in (value if isinstance(value, (list, tuple)) else [value])
        if isinstance(function, types.FunctionType)
        and any(
            id(part) in members
            for held in _held(function)
            if isinstance(held, chainer.Link)
            for part in held.links()
        )
    ]


def _held(function):
    """Return the objects that a function holds in its closure and defaults."""
    held = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            held.append(cell.cell_contents)
    return [
        *held,
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
    ]


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
