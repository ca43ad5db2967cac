import ctypes
import operator

import numpy
from numpy.lib.mixins import NDArrayOperatorsMixin

from cupy.cuda import _state
from cupy.cuda._state import record

_PRIORITY = 100  # of CuPy's arrays; Chainer's variables have a higher one


def wrap(result):
    """Put what NumPy returned on the current device."""
    if isinstance(result, (tuple, list)):
        return type(result)(map(wrap, result))
    if isinstance(result, (numpy.ndarray, numpy.generic)):
        return _make(numpy.asarray(result))
    return result


def _make(host):
    array = object.__new__(ndarray)
    array.host = host
    array.device_id = _state.current_device
    return array


def unwrap(value):
    """Return the host memory of what is on the current device."""
    if isinstance(value, ndarray):
        where = value.device_id, _state.current_device
        assert where[0] == where[1], f"array of device {where[0]} used on {where[1]}"
        return value.host
    if isinstance(value, (tuple, list)):
        return type(value)(map(unwrap, value))
    if isinstance(value, dict):
        return {key: unwrap(v) for key, v in value.items()}
    if isinstance(value, numpy.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def call(function, args, kwargs):
    """Call a function of NumPy for arrays on the device."""
    kwargs = {k: v for k, v in kwargs.items() if k not in ("blocking", "stream")}
    result = function(*unwrap(args), **unwrap(kwargs))
    out = kwargs.get("out")
    return wrap(result) if out is None else out


class MemoryPointer:
    def __init__(self, array):
        self._array = array
        self.ptr = array.host.ctypes.data
        self.device_id = array.device_id

    def copy_to_host_async(self, mem, size, stream=None):
        """The copy is there when the stream has been waited for, and not before."""
        mem = mem.value  # CuPy 10 takes no int
        record.append(("copy to host", size))
        stream = stream or _state.current_stream()
        stream.advance()
        data = ctypes.string_at(self.ptr, size)
        ctypes.memset(mem, 0xA5, size)
        stream.later(lambda: ctypes.memmove(mem, data, size))


class ndarray(NDArrayOperatorsMixin):
    def __init__(self, shape, dtype=float, memptr=None):
        assert memptr is None
        self.host = numpy.empty(shape, dtype)
        self.device_id = _state.current_device

    @property
    def device(self):
        return _state.Device(self.device_id)

    @property
    def data(self):
        return MemoryPointer(self)

    @property
    def __cuda_array_interface__(self):
        return {**self.host.__array_interface__, "version": 3, "stream": None}

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if any(isinstance(v, numpy.ndarray) for v in inputs):
            return NotImplemented
        if any(getattr(v, "__array_priority__", 0) > _PRIORITY for v in inputs):
            return NotImplemented
        out = kwargs.get("out")
        result = getattr(ufunc, method)(*unwrap(inputs), **unwrap(kwargs))
        return out[0] if out is not None else wrap(result)

    def __array_function__(self, function, types, args, kwargs):
        return call(function, args, kwargs)

    def get(self, stream=None, order="C", out=None):
        """Copies, and with a stream waits for nothing, as CuPy did before 13."""
        record.append(("to host", self.nbytes))
        if stream is None:
            _state.current_stream().synchronize()
            return numpy.array(self.host, order=order)
        assert out.flags.c_contiguous and out.dtype == self.dtype
        assert out.shape == self.shape
        stream.advance()
        data = self.host.copy()
        out.view(numpy.uint8)[...] = 0xA5
        stream.later(lambda: numpy.copyto(out, data))
        return out

    def set(self, arr, stream=None):
        """What is copied may change only when the stream has been waited for."""
        assert isinstance(arr, numpy.ndarray)
        assert arr.dtype == self.dtype and arr.shape == self.shape
        record.append(("to device", self.nbytes))
        self.host[...] = arr
        kept = arr.copy()

        def check():
            assert arr.tobytes() == kept.tobytes(), "changed while it was copied"

        (stream or _state.current_stream()).later(check)

    def reduced_view(self):
        return self

    def item(self, *args):
        return self.get().item(*args)

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        return operator.index(self.item())

    def __bool__(self):
        return bool(self.get())

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        return wrap(self.host[unwrap(key)])

    def __setitem__(self, key, value):
        self.host[unwrap(key)] = unwrap(value)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self.host, name)
        if not callable(value):
            return wrap(value)
        return lambda *args, **kwargs: call(value, args, kwargs)

    def __setattr__(self, name, value):
        if name in ("shape", "dtype"):
            setattr(self.host, name, value)
        else:
            super().__setattr__(name, value)

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return _from_host, (self.get(),)


def _from_host(host):
    record.append(("to device", host.nbytes))
    return _make(host)
