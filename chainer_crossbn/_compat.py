"""Make Chainer 7.8.1 and its ChainerMN run on today's Python, NumPy and CuPy.

Chainer's last release does not import on NumPy 2 or Python 3.12. :func:`install` puts
a finder in front of Python's own. It handles Chainer's modules only, and corrects the
source of those that need it before they are compiled. ``numpy``, ``sys.modules`` and
the warning filters stay as they are, and nothing is imported that the program does not
import itself.
"""

import importlib
import importlib.machinery
import sys

_PACKAGES = ("chainer", "chainermn")

_OWN_PKG_RESOURCES = (
    "import pkg_resources",
    "from chainer_crossbn import _compat as pkg_resources",
)

# Module -> (old, new) texts. No edit changes the number of lines, so that tracebacks
# show the lines of Chainer's own file.
_EDITS = {
    # numpy.sctypes: removed in NumPy 2.0.
    "chainer.functions.array.as_strided": [
        ("np.sctypes['int']", "(np.int8, np.int16, np.int32, np.int64)"),
        ("np.sctypes['float']", "(np.float16, np.float32, np.float64)"),
    ],
    # numpy.meshgrid: a tuple since NumPy 2.0, no longer a list.
    "chainer.distributions.categorical": [("self.log_p[mg +", "self.log_p[list(mg) +")],
    # x / numpy.float32(3): NumPy 2 takes the reciprocal in float32, whatever x is.
    "chainer.functions.math.basic_math": [
        (
            "1. / rhs",
            "(numpy.float64(1) if isinstance(rhs, numpy.generic) else 1.) / rhs",
        )
    ],
    # numpy.float: removed in NumPy 1.24.
    "chainer.functions.array.resize_images": [("numpy.float)", "float)")],
    # cupy.array(copy=False): an error since CuPy 14 if it has to copy.
    "chainermn.communicators._memory_utility": [
        (
            "xp.array(v, copy=False, dtype=transfer_dtype)",
            "v.astype(transfer_dtype, copy=False)",
        ),
        # half: no longer in this header since CuPy 14.
        ("#include <cupy/carray.cuh>", "#include <cuda_fp16.h>"),
    ],
    # cupy.cudnn: removed in CuPy 14, so don't warn that it is missing.
    "chainer.backends.cuda": [
        (
            "int(os.environ.get('CHAINER_CUDNN', '1')) == 0",
            "_cupy_major > 13 or int(os.environ.get('CHAINER_CUDNN', '1')) == 0",
        )
    ],
    # Python 3.14 no longer forks by default; workers that are not forked have to import
    # the data set, and are started again and again if they can't.
    "chainer.iterators.multiprocess_iterator": [
        (
            "multiprocessing.Pool(",
            "multiprocessing.get_context("
            "multiprocessing.get_start_method(allow_none=True)"
            " or (sys.platform == 'linux' and 'fork' or None)).Pool(",
        )
    ],
    # int(array of one element): an error since NumPy 2.4.
    "chainermn.iterators.multi_node_iterator": [("int(_size)", "int(_size[0])")],
    # pkg_resources: removed from setuptools.
    "chainer.testing.doctest_helper": [_OWN_PKG_RESOURCES],
    "chainer.testing.helper": [_OWN_PKG_RESOURCES],
    # numpy.distutils: removed in Python 3.12. It is used for a warning about macOS.
    "chainer._environment_check": [
        ("import numpy.distutils.system_info", ""),
        ("import pkg_resources", ""),
        ("    _check_osx_numpy_backend()", ""),
        # It warns that CuPy is newer than Chainer's last release.
        ("    _check_optional_dependencies()", ""),
    ],
}


class ResolutionError(Exception):
    """Stands in for ``pkg_resources.ResolutionError``: a requirement is not met."""


class WorkingSet:
    """Stands in for ``pkg_resources.WorkingSet``: the installed distributions."""

    def require(self, *requirements: str) -> None:
        # Imported here, as only Chainer's test helpers call this.
        from importlib import metadata

        from packaging.requirements import Requirement

        for requirement in map(Requirement, requirements):
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError as error:
                raise ResolutionError(str(requirement)) from error
            if not requirement.specifier.contains(version, prereleases=True):
                raise ResolutionError(f"{requirement}, but {version} is installed")


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module of Chainer after correcting its source."""

    def get_code(self, fullname):
        if fullname not in _EDITS:
            return super().get_code(fullname)
        source = self.get_source(fullname)
        for old, new in _EDITS[fullname]:
            source = source.replace(old, new)
        return self.source_to_code(source, self.path)


class _Finder:
    """Finds Chainer's modules where Python does, and loads them with _Loader."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in _PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Make ``import chainer`` and ``import chainermn`` work from now on."""
    if _Finder in sys.meta_path:
        return
    sys.meta_path.insert(0, _Finder)
    if "chainer" in sys.modules:
        # It imported, so this is NumPy 1, of which 1.24 lacks numpy.float.
        importlib.reload(sys.modules["chainer.functions.array.resize_images"])
    else:
        # Submodules that a failed import left behind make the next one fail.
        for name in [name for name in sys.modules if name.startswith("chainer.")]:
            del sys.modules[name]
