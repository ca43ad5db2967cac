"""Check on one screen whether a machine, or a cluster, is ready for training.

``python -m chainer_crossbn doctor``, alone or under ``mpiexec``.
"""

from chainer_crossbn.commands.doctor.main import main

__all__ = ["main"]
