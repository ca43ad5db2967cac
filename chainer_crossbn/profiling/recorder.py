"""Records the times of one rank's training steps."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple, Optional

import chainer
import numpy
from chainer.backend import Device
from chainermn.links import MultiNodeBatchNormalization

from chainer_crossbn import collectives
from chainer_crossbn.functions.recompute import Recomputed

OUTSIDE = "loss"


class Layout(NamedTuple):
    """The layers of the functions of a step, in the order in which they are called.

    Attributes:
        layers (tuple of str): Path of the link that calls the function.
        backward (array): bool, shape (n,): whether it is the function's backward pass.
        normalizes (array): bool, shape (n,): whether the layer is a normalization.
    """

    layers: tuple[str, ...]
    backward: numpy.ndarray
    normalizes: numpy.ndarray


class Step(NamedTuple):
    """The times of a step in seconds.

    Attributes:
        layout (Layout): The layers of the functions.
        functions (array): float64, shape (n, 2): starts and ends of the functions.
        parts (array): int, shape (m,): index of the function of each collective.
        collectives (array): float64, shape (m, 2): starts and ends of the collectives.
        all_reduce (array): float64, shape (2,): start and end of the all-reduce of the
            gradients.
        phases (array): float64, shape (6,): ``phases`` of the updater.
    """

    layout: Layout
    functions: numpy.ndarray
    parts: numpy.ndarray
    collectives: numpy.ndarray
    all_reduce: numpy.ndarray
    phases: numpy.ndarray

    def converted(self, convert: Callable[[numpy.ndarray], numpy.ndarray]) -> "Step":
        """Return the step in the times of another clock.

        Args:
            convert (callable): Converts an array of times.
        """
        return self._replace(
            functions=convert(self.functions),
            collectives=convert(self.collectives),
            all_reduce=convert(self.all_reduce),
            phases=convert(self.phases),
        )


class Recorder(chainer.FunctionHook):
    """Records the starts and ends of functions and collectives of training steps.

    A step is taken ``with`` the recorder. The layers of the functions are determined in
    the first step, and after one that calls other functions than before. In all other
    steps only times are recorded, because a link hook can take as long as a layer.

    Args:
        model (chainer.Link): The model, in which normalizations are named ``norm``.
        device (chainer.backend.Device): Its device. GPUs are synchronized after each
            function.

    Attributes:
        bn_mpi_comm (mpi4py.MPI.Comm or None): The ranks that share the collectives of
            the normalizations; ``None`` if there are none.
    """

    name = "chainer_crossbn profile"

    def __init__(self, model: chainer.Link, device: Device) -> None:
        super().__init__()
        self._names = _LinkNames(model)
        self._synchronize = _synchronizer(device)
        self._layouts: dict[tuple[type, ...], Layout] = {}
        self._searching = True
        self._clear()
        self.bn_mpi_comm = self._observe_normalizations(model)

    def timed(self, comm: Any) -> "TimedCommunicator":
        """Return a communicator whose all-reduces of gradients are recorded.

        Args:
            comm: ChainerMN communicator.
        """
        return TimedCommunicator(comm, on_gradients=self._record_all_reduce)

    def _observe_normalizations(self, model):
        """Record the collectives of normalizations; return their MPI communicator.

        The normalizations of a model share one communicator.
        """
        mpi_comm = None
        for link in model.links():
            comm = getattr(link, "comm", None)
            if comm is None or comm.size == 1:
                continue
            mpi_comm = comm.mpi_comm
            if isinstance(link, MultiNodeBatchNormalization):
                # Its constructor chooses NCCL by the class of the communicator.
                link.comm = TimedCommunicator(comm, on_mean=self._record_collective)
            else:
                collectives.observe(comm, self._record_collective)
        return mpi_comm

    def _clear(self):
        self._depth = 0
        self._times, self._classes = [], []
        self._collectives = []
        self._all_reduce = (0.0, 0.0)
        self._calls, self._layer_of = [], {}

    def __enter__(self):
        self._clear()
        if self._searching:
            self._names.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        if self._searching:
            self._names.__exit__(*exception)
        super().__exit__(*exception)

    def take_step(self, phases: tuple[float, ...]) -> Step:
        """Return the last :class:`Step`.

        Args:
            phases (tuple of float): ``phases`` of the updater.
        """
        key = tuple(self._classes)
        if self._searching:
            self._layouts[key] = _layout(self._calls)
            self._layer_of.clear()
        layout = self._layouts.get(key)
        self._searching = layout is None
        if layout is None:
            layout = _layout([(OUTSIDE, False)] * len(key))
        collectives = numpy.array(self._collectives).reshape(-1, 3)
        return Step(
            layout=layout,
            functions=numpy.array(self._times).reshape(-1, 2),
            parts=collectives[:, 0].astype(int),
            collectives=collectives[:, 1:],
            all_reduce=numpy.array(self._all_reduce),
            phases=numpy.array(phases),
        )

    def _record_collective(self, started, ended):
        # It belongs to the function that is being called.
        self._collectives.append((len(self._classes), started, ended))

    def _record_all_reduce(self, started, ended):
        self._all_reduce = started, ended

    # The hooks run a hundred times per step, so they call little themselves. A function
    # that another one calls is part of it, except in a recomputed block, which consists
    # of nothing but its functions.

    def forward_preprocess(self, function, *_):
        if function.__class__ is Recomputed:
            return
        if not self._depth:
            if self._synchronize:
                self._synchronize()
            self._times.append(perf_counter())
        self._depth += 1

    def forward_postprocess(self, function, *_):
        if function.__class__ is Recomputed:
            return
        self._depth -= 1
        if self._depth:
            return
        if self._synchronize:
            self._synchronize()
        self._times.append(perf_counter())
        self._classes.append(function.__class__)
        if self._searching:
            backward = function in self._layer_of or chainer.config.in_recomputing
            layer = self._layer_of.setdefault(function, self._names.current)
            self._calls.append((layer, backward))

    backward_preprocess = forward_preprocess
    backward_postprocess = forward_postprocess


def _layout(calls):
    layers, backward = zip(*calls)
    normalizes = ["norm" in layer.split("/") for layer in layers]
    return Layout(layers, numpy.array(backward), numpy.array(normalizes))


def _synchronizer(device):
    if device.xp is numpy:
        return None
    return lambda: device.xp.cuda.get_current_stream().synchronize()


class _LinkNames(chainer.LinkHook):
    """Provides the path of the link that is being called."""

    name = "chainer_crossbn profile of links"

    def __init__(self, model):
        self._paths = {id(link): path for path, link in model.namedlinks()}
        self._called = [OUTSIDE]

    @property
    def current(self):
        return self._called[-1]

    def forward_preprocess(self, args):
        self._called.append(self._paths.get(id(args.link), self.current))

    def forward_postprocess(self, args):
        self._called.pop()


class TimedCommunicator:
    """A ChainerMN communicator that reports when all-reduces start and end.

    Args:
        comm: ChainerMN communicator.
        on_gradients (callable or None): Takes start and end of each all-reduce of
            gradients, in seconds of :func:`time.perf_counter`.
        on_mean (callable or None): The same of each mean of an array, as made by
            :class:`chainermn.links.MultiNodeBatchNormalization`.
    """

    def __init__(
        self,
        comm: Any,
        on_gradients: Optional[Callable[[float, float], None]] = None,
        on_mean: Optional[Callable[[float, float], None]] = None,
    ) -> None:
        self._comm = comm
        self._on_gradients = on_gradients
        self._on_mean = on_mean

    def multi_node_mean_grad(self, model, zero_fill=False):
        """Average the gradients of a model, as the communicator does."""
        started = perf_counter()
        self._comm.multi_node_mean_grad(model, zero_fill)
        if self._on_gradients is not None:
            self._on_gradients(started, perf_counter())

    def _multi_node_mean(self, sendbuf, recvbuf):
        started = perf_counter()
        self._comm._multi_node_mean(sendbuf, recvbuf)
        if self._on_mean is not None:
            self._on_mean(started, perf_counter())

    def __getattr__(self, name):
        return getattr(self._comm, name)
