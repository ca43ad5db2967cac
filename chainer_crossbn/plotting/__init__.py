"""Figures and tables from run directories; needs neither Chainer nor a display.

``python plot.py PATH...`` draws them. :mod:`chainer_crossbn.runs` reads the runs, and
:mod:`.groups` puts the seeds of one configuration together. :mod:`.curves`,
:mod:`.bars`, :mod:`.trends`, :mod:`.profiles` and :mod:`.papers` draw figures,
:mod:`.table` makes text, and :mod:`.files` writes both.
"""
