"""How the kernels for CPUs are compiled."""

import contextlib

import numba
from numba.core import event

# Sums may be taken in another order and products contracted; NaN and Inf are kept.
REORDERED = {"reassoc", "contract", "nsz", "arcp"}


def compiled(fastmath):
    """Return a decorator that compiles a function, and caches it on disk if it can.

    Args:
        fastmath (bool or set of str): LLVM's fast-math flags, as Numba takes them.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}

    def decorate(function):
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no directory that the cache can be written into
            return numba.njit(**options)(function)

    return decorate


@contextlib.contextmanager
def each_step(call):
    """Have a function called at each step of a compilation, of which none takes long.

    Args:
        call (callable): Takes nothing.
    """

    class Steps(event.Listener):
        def on_start(self, event):
            call()

        def on_end(self, event):
            call()

    with event.install_listener("numba:run_pass", Steps()):
        yield
