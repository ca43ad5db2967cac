"""Limit the threads that BLAS uses."""

import contextlib

try:
    import threadpoolctl
except ImportError:  # then only OPENBLAS_NUM_THREADS and the like have an effect
    threadpoolctl = None


def can_be_limited() -> bool:
    """Return whether :func:`limited` has an effect."""
    return threadpoolctl is not None


def limited(n_threads: int) -> contextlib.AbstractContextManager:
    """Return a context in which BLAS uses ``n_threads`` threads, where possible."""
    if threadpoolctl is None:
        return contextlib.nullcontext()
    return threadpoolctl.threadpool_limits(n_threads)


def of_blas():
    """Return the number of threads that BLAS uses, or ``None`` if it is unknown."""
    pools = [] if threadpoolctl is None else threadpoolctl.threadpool_info()
    of_each = (p["num_threads"] for p in pools if p["user_api"] == "blas")
    return max(of_each, default=None)
