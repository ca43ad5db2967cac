"""How the kernels for CPUs are compiled.

Compiled kernels are cached on disk, by Numba's cache with checksums. No failure of the
cache is an error: damaged files are replaced, and without space nothing is cached.
"""

import contextlib
import hashlib
import pickle

import numba
from numba.core import caching, event

# Sums may be taken in another order and products contracted; NaN and Inf are kept.
REORDERED = {"reassoc", "contract", "nsz", "arcp"}


# What reading and writing a cache may raise.
_FAILURES = (
    OSError,
    RuntimeError,
    pickle.PickleError,
    EOFError,
    AttributeError,
    ImportError,
)


class _CheckedFile(caching.IndexDataCacheFile):
    """Files of a cache that start with the checksum of the rest."""

    def _dump(self, obj):
        data = super()._dump(obj)
        return hashlib.sha256(data).digest() + data

    def _load(self, path):
        """Return the object in a file, ``None`` if the file is damaged."""
        with open(path, "rb") as file:
            checksum, data = file.read(hashlib.sha256().digest_size), file.read()
        return pickle.loads(data) if hashlib.sha256(data).digest() == checksum else None

    def _load_index(self):
        try:
            stamp, overloads = self._load(self._index_path) or (None, {})
        except FileNotFoundError:
            return {}
        return overloads if stamp == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads):
        data = self._dump(((self._version, self._source_stamp), overloads))
        with self._open_for_write(self._index_path) as file:
            file.write(data)

    def _load_data(self, name):
        return self._load(self._data_path(name))


class _Cache(caching.FunctionCache):
    """Cache of a function, of which no failure is an error."""

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = _CheckedFile(
            cache_path=self._cache_path,
            # Numba's own files have another format.
            filename_base=f"{self._impl.filename_base}.checked",
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def _guard_against_spurious_io_errors(self):
        return contextlib.suppress(*_FAILURES)


def compiled(fastmath):
    """Return a decorator that compiles a function, and caches it on disk if it can.

    Args:
        fastmath (bool or set of str): LLVM's fast-math flags, as Numba takes them.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}

    def decorate(function):
        dispatcher = numba.njit(**options)(function)
        # There may be no directory that the cache can be written into.
        with contextlib.suppress(OSError, RuntimeError):
            dispatcher._cache = _Cache(function)
        return dispatcher

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
