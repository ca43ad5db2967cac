"""Batch normalization over the mini-batches of all MPI ranks, for Chainer.

Public names are imported when first used, so that the parts that need no Chainer
(such as :mod:`chainer_crossbn.plotting`) load none.
"""

import importlib

from chainer_crossbn import _compat

__version__ = "0.1.0"

# Public name -> the submodule that defines it.
_EXPORTS = {
    "CollectiveError": "errors",
    "CrossBatchNormalization": "links",
    "create_cross_bn_model": "links",
    "cross_batch_normalization": "functions",
}

__all__ = ["__version__", *_EXPORTS]

_compat.install()


def __getattr__(name):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_EXPORTS})
