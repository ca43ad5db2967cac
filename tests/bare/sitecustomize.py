"""On the path of a test's processes, as if little more than Chainer was installed.

There are NumPy, mpi4py, filelock and typing_extensions, as where PyTorch is; neither
what serves speed or images in files, nor Chainer's own requirement six.
"""

import os
import sys
from importlib.machinery import PathFinder

for name in ("PIL", "matplotlib", "numba", "packaging", "threadpoolctl"):
    sys.modules[name] = None


class WithoutSix(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "six" else super().find_spec(name, path, target)


if "WITH_SIX" not in os.environ:
    sys.meta_path = [WithoutSix if f is PathFinder else f for f in sys.meta_path]
