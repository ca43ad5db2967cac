"""What trains on all ranks: iterator, updater, optimizer and extensions.

Public names are imported when first used.
"""

import importlib

# Public name -> the submodule that defines it.
_EXPORTS = {
    "EpochStatistics": "extensions",
    "GlobalEvaluator": "extensions",
    "GlobalUpdater": "updaters",
    "MomentumSGD": "optimizers",
    "ShareIterator": "iterators",
    "averaged": "running_statistics",
    "deviations": "local_statistics",
    "prime": "updaters",
}

__all__ = [*_EXPORTS]


def __getattr__(name):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value
