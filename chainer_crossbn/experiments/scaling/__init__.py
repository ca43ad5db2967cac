"""A model of the time of an iteration, from profiled runs; needs no Chainer.

``python -m chainer_crossbn scaling PATH...`` evaluates it. :mod:`.observations`
reads runs, :mod:`.model` is fitted to them, :mod:`.checks` predicts what it was not
fitted to, :mod:`.extrapolation` goes on to more ranks over :mod:`.interconnects`, and
:mod:`.synchronization` evaluates claim 7 of the paper on :mod:`.tsubame_kfc`, for
:mod:`.judging` to judge; :mod:`.report` words it. :mod:`.evaluation` does all of it.
"""
