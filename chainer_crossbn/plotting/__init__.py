"""Figures and tables from run directories; needs neither Chainer nor a display.

``python plot.py PATH...`` draws them. The way of a run: :mod:`chainer_crossbn.runs`
reads and checks it, :mod:`.groups` puts the seeds of one configuration together,
:mod:`.curves`,
:mod:`.bars`, :mod:`.trends` and :mod:`.papers` draw, :mod:`.table` writes text and
:mod:`.files` writes figures.
"""
