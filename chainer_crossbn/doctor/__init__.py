"""Tell in one screen whether a machine, or a cluster, is fit for training.

``python -m chainer_crossbn.doctor``, alone or under ``mpiexec``.
"""

from chainer_crossbn.doctor.command import main

__all__ = ["main"]
