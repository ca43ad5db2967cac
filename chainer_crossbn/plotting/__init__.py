"""Figures and tables from run directories; needs neither Chainer nor a display.

``python plot.py PATH...`` calls :func:`main`. The way of a run: :mod:`.runs` reads and
checks it, :mod:`.groups` puts the seeds of one configuration together, :mod:`.curves`,
:mod:`.bars`, :mod:`.trends` and :mod:`.papers` draw, :mod:`.table` writes text,
:mod:`.files` writes figures, :mod:`.command` is the command line.
"""

from chainer_crossbn.plotting.command import draw, main
from chainer_crossbn.plotting.groups import group_runs
from chainer_crossbn.plotting.runs import find_runs

__all__ = ["draw", "find_runs", "group_runs", "main"]
