from types import SimpleNamespace

from cupy.cuda import _state, cublas, memory_hook, nccl  # noqa: F401
from cupy.cuda._state import Device, Event, Stream  # noqa: F401
from cupy.cuda._state import current_stream as get_current_stream  # noqa: F401


class _CUDARuntimeError(RuntimeError):
    pass


def _device_synchronize():
    Device().synchronize()


runtime = SimpleNamespace(
    CUDARuntimeError=_CUDARuntimeError,
    getDeviceCount=_state.n_devices,
    deviceSynchronize=_device_synchronize,
    getDeviceProperties=lambda device: {
        "name": b"what stands in for a device",
        "major": _state.capability() // 10,
        "minor": _state.capability() % 10,
        "totalGlobalMem": 1 << 30,
    },
    runtimeGetVersion=lambda: 12080,
    driverGetVersion=lambda: 12080,
)


def get_elapsed_time(start, end):
    return 1e3 * (end.seconds - start.seconds)


def alloc_pinned_memory(size):
    return bytearray(max(size, 1))
