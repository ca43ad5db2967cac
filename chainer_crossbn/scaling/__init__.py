"""A model of the time of an iteration, from profiled runs; needs no Chainer.

``python -m chainer_crossbn.scaling PATH...`` calls :func:`main`. :mod:`.observations`
reads runs, :mod:`.model` is fitted to them, :mod:`.checks` predicts what it was not
fitted to, :mod:`.extrapolation` goes on to more ranks over :mod:`.interconnects`, and
:mod:`.synchronization` evaluates claim 7 of the paper on :mod:`.tsubame_kfc`, for
:mod:`.judging` to judge; :mod:`.report` writes it all down.
"""

from chainer_crossbn.scaling.command import main
from chainer_crossbn.scaling.synchronization import claim7, relative_skew

__all__ = ["claim7", "main", "relative_skew"]
