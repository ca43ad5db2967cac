"""What one rank notes of its training steps."""

from time import perf_counter
from typing import NamedTuple

import chainer
import numpy

from chainer_crossbn.functions.recompute import Recomputed

OUTSIDE = "loss"


class Layout(NamedTuple):
    """Where the functions of a step belong, in the order in which they are called.

    Attributes:
        layers (tuple of str): Path of the link that calls the function.
        backward (array): bool, shape (n,): whether it is the function's backward pass.
        normalizes (array): bool, shape (n,): whether the layer is a normalization.
    """

    layers: tuple
    backward: numpy.ndarray
    normalizes: numpy.ndarray


class Step(NamedTuple):
    """What was noted of a step; times in seconds.

    Attributes:
        layout (Layout): Where the functions belong.
        functions (array): float64, shape (n, 2): their starts and ends.
        parts (array): Numbers of the functions that the collectives belong to.
        collectives (array): float64, shape (m, 2): their starts and ends.
        all_reduce (array): float64, shape (2,): that of the gradients.
        phases (array): float64, shape (6,): as the updater has them.
    """

    layout: Layout
    functions: numpy.ndarray
    parts: numpy.ndarray
    collectives: numpy.ndarray
    all_reduce: numpy.ndarray
    phases: numpy.ndarray

    def told_by(self, clock):
        """Return the step in the times of another clock.

        Args:
            clock (callable): From an array of times to those of that clock.
        """
        return Step(
            self.layout,
            clock(self.functions),
            self.parts,
            clock(self.collectives),
            clock(self.all_reduce),
            clock(self.phases),
        )


class Recorder(chainer.FunctionHook):
    """Notes when the functions and collectives of training steps start and end.

    A step is made ``with`` the recorder. Which layers the functions belong to is found
    in the first step, and in one that follows other functions than before; in all
    others times alone are noted, as a layer may take as long as a hook of its own.

    Args:
        model (chainer.Link): Calls its normalizations ``norm``.
        synchronize (callable or None): Waits for the device.
    """

    name = "chainer_crossbn profile"

    def __init__(self, model, synchronize=None):
        super().__init__()
        self._names = _LinkNames(model)
        self._synchronize = synchronize
        self._layouts = {}
        self._searching = True

    def __enter__(self):
        self._depth = 0
        self._times, self._classes = [], []
        self._collectives = []
        self._all_reduce = (0.0, 0.0)
        self._found, self._layer_of = [], {}
        if self._searching:
            self._names.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        if self._searching:
            self._names.__exit__(*exception)
        super().__exit__(*exception)

    def take_step(self, phases):
        """Return the :class:`Step` that was made last.

        Args:
            phases (tuple): As the updater has them.
        """
        key = tuple(self._classes)
        if self._searching:
            self._layouts[key] = _layout(self._found)
            self._layer_of.clear()
        layout = self._layouts.get(key)
        self._searching = layout is None
        if layout is None:
            layout = _layout([(OUTSIDE, False)] * len(key))
        collectives = numpy.array(self._collectives).reshape(-1, 3)
        return Step(
            layout,
            numpy.array(self._times).reshape(-1, 2),
            collectives[:, 0].astype(int),
            collectives[:, 1:],
            numpy.array(self._all_reduce),
            numpy.array(phases),
        )

    def note_collective(self, started, ended):
        """Note a collective of the function that is being called."""
        self._collectives.append((len(self._classes), started, ended))

    def note_all_reduce(self, started, ended):
        """Note the all-reduce of the gradients."""
        self._all_reduce = started, ended

    # Called a hundred times a step, so they call little themselves. A function that
    # another calls is a part of that, but of a block that is recomputed, which is
    # nothing but its functions.

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
            self._found.append((layer, backward))

    backward_preprocess = forward_preprocess
    backward_postprocess = forward_postprocess


def _layout(found):
    layers, backward = zip(*found)
    normalizes = ["norm" in layer.split("/") for layer in layers]
    return Layout(layers, numpy.array(backward), numpy.array(normalizes))


class _LinkNames(chainer.LinkHook):
    """Knows the path of the link that is being called."""

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
    """A communicator of which one method is timed.

    Args:
        comm: ChainerMN communicator.
        method (str): Name of the method.
        note (callable): Takes start and end, seconds of :func:`time.perf_counter`.
    """

    def __init__(self, comm, method, note):
        self._comm = comm
        self._note = note
        setattr(self, method, self._timed(getattr(comm, method)))

    def _timed(self, function):
        def call(*args, **kwargs):
            started = perf_counter()
            result = function(*args, **kwargs)
            self._note(started, perf_counter())
            return result

        return call

    def __getattr__(self, name):
        return getattr(self._comm, name)
