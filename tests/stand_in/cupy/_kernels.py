import ctypes

import numpy
from cuda_on_host import compiled, load

from cupy._arrays import ndarray, unwrap, wrap
from cupy.cuda._state import record

_TYPES = {
    "float16": "_Float16",
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int32": "int",
    "int64": "long long",
}
_START = """
#include <math.h>
#include <stddef.h>
template <class T> static T max(T a, T b) { return b > a ? b : a; }
template <class T> static T min(T a, T b) { return b < a ? b : a; }
struct Indexer {
  ptrdiff_t n;
  ptrdiff_t size() const { return n; }
};
"""


class RawModule:
    def __init__(self, *, code, options=()):
        self._arguments = code, tuple(options)

    def get_function(self, name):
        launch = load(*self._arguments)

        def function(grid, block, args):
            assert block == (256,)
            record.append(("launch", name))
            launch(name, grid, *(unwrap(v) for v in args))

        return function


class RawKernel:
    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        raise NotImplementedError("a kernel of ChainerMN, for CuPy's own headers")


class _Kernel:
    """A kernel of which CUDA C++ is given for one element."""

    def __init__(self, in_params, out_params, name):
        self._ins = [_Parameter(p) for p in in_params.split(",") if p.strip()]
        self._outs = [_Parameter(p) for p in out_params.split(",") if p.strip()]
        self._name = name

    def _bind(self, args):
        """Return the dtypes that the letters stand for."""
        dtypes = {}
        for parameter, arg in zip(self._ins + self._outs, args):
            if isinstance(arg, (ndarray, numpy.generic)):
                dtypes.setdefault(parameter.type, arg.dtype)
        return dtypes

    def _run(self, code, dtypes, arrays, size):
        record.append(("launch", self._name))
        letters = "".join(
            f"typedef {_TYPES[dtype.name]} {letter};\n"
            for letter, dtype in dtypes.items()
            if letter not in _TYPES
        )
        names = "".join(
            f"typedef {own} {name};\n"
            for name, own in _TYPES.items()
            if name not in ("bool", own)
        )
        head = 'extern "C" void run(void** arguments, ptrdiff_t size) {\n'
        function = compiled(_START + names + letters + head + code + "}\n").run
        pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        function(pointers, ctypes.c_ssize_t(size))


class _Parameter:
    def __init__(self, text):
        *qualifiers, self.type, self.name = text.split()
        self.raw = "raw" in qualifiers

    def dtype(self, dtypes):
        return dtypes[self.type] if self.type in dtypes else numpy.dtype(self.type)

    def declared(self, index, scalar):
        pointer = f"(({self.type}*)arguments[{index}])"
        if self.raw:
            return f"{self.type}* const {self.name} = {pointer};\n"
        where = "0" if scalar else "i"
        return f"{self.type}& {self.name} = {pointer}[{where}];\n"


class ElementwiseKernel(_Kernel):
    def __init__(
        self, in_params, out_params, operation, name="kernel", preamble="", **kwargs
    ):
        super().__init__(in_params, out_params, name)
        self._operation = operation
        self._preamble = preamble
        assert not set(kwargs) - {"no_return", "reduce_dims"}, kwargs

    def __call__(self, *args, size=None):
        parameters = self._ins + self._outs
        dtypes = self._bind(args)
        args = [unwrap(arg) for arg in args]
        shapes = [
            numpy.shape(arg) for p, arg in zip(parameters, args) if not p.raw
        ] or [()]
        shape = numpy.broadcast_shapes(*shapes) if size is None else (size,)
        given = args[len(self._ins) :]
        outs = [
            given[i] if given else numpy.empty(shape, p.dtype(dtypes))
            for i, p in enumerate(self._outs)
        ]
        arrays, code = [], ""
        for p, arg in zip(parameters, [*args[: len(self._ins)], *outs]):
            scalar = numpy.ndim(arg) == 0 and p in self._ins
            if not (p.raw or scalar):
                arg = numpy.broadcast_to(arg, shape)
            code += p.declared(len(arrays), scalar)
            arrays.append(numpy.array(arg, p.dtype(dtypes), order="C"))
        n = int(numpy.prod(shape))
        loop = "for (ptrdiff_t i = 0; i < size; ++i) {\n" + code
        prefix = "const Indexer _ind = {size};\n"
        self._run(f"{prefix}{loop}{self._operation};\n}}\n", dtypes, arrays, n)
        for out, found in zip(outs, arrays[len(self._ins) :]):
            out[...] = found
        if given:
            return None
        return wrap(outs[0]) if len(outs) == 1 else wrap(tuple(outs))


class ReductionKernel(_Kernel):
    """Of whole arrays."""

    def __init__(
        self, in_params, out_params, map_expr, reduce_expr, post_map_expr, identity,
        name="reduction", **kwargs,
    ):  # fmt: skip
        super().__init__(in_params, out_params, name)
        self._parts = map_expr, reduce_expr, post_map_expr, identity
        assert not kwargs, kwargs

    def __call__(self, *args, axis=None, keepdims=False):
        assert axis is None and not keepdims
        dtypes = self._bind(args)
        args = [unwrap(arg) for arg in args]
        (parameter,) = self._outs
        shape = numpy.broadcast_shapes(
            *(numpy.shape(arg) for p, arg in zip(self._ins, args) if not p.raw)
        )
        arrays, code = [], ""
        for p, arg in zip(self._ins, args):
            scalar = numpy.ndim(arg) == 0
            if not (p.raw or scalar):
                arg = numpy.broadcast_to(arg, shape)
            code += p.declared(len(arrays), scalar)
            arrays.append(numpy.array(arg, p.dtype(dtypes), order="C"))
        out = numpy.zeros((), parameter.dtype(dtypes))
        arrays.append(out)
        mapped, reduced, finished, identity = self._parts
        kind = parameter.type
        body = (
            f"{kind} total = {identity};\n"
            "for (ptrdiff_t i = 0; i < size; ++i) {\nconst ptrdiff_t _j = i;\n"
            f"{code}const {kind} a = total, b = {mapped};\ntotal = {reduced};\n}}\n"
            "const ptrdiff_t i = 0;\n"
            + "".join(p.declared(k, 1) for k, p in enumerate(self._ins) if p.raw)
            + parameter.declared(len(arrays) - 1, True)
            + f"const {kind} a = total;\n{finished};\n"
        )
        self._run(body, dtypes, arrays, int(numpy.prod(shape)))
        return wrap(out)
