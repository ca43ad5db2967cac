"""What a rank sees of the GPUs of its node."""

import glob
import importlib.util
import warnings

from chainer.backends import cuda

# The least compute capability for which a CUDA release compiles (NVIDIA's release
# notes: Kepler's 3.x went with 12.0, Maxwell to Volta with 13.0).
_LEAST_CAPABILITY = ((13, 75), (12, 50), (11, 35))
_DRIVER = "/proc/driver/nvidia/version"


def seen():
    """Look for GPUs.

    Returns:
        dict: ``driver``, the kernel driver's version or ``None``; ``boards``, device
        files of GPUs; ``why``, in words why Chainer can't use any, or ``None``;
        ``devices``, of each GPU its ``name``, ``capability`` (as 37 for 3.7), ``bus``
        and ``memory`` in bytes; ``versions`` in words, empty where there is no CuPy;
        ``cuda``, the release of its runtime, as 1180 for 11.8, or ``None``.
    """
    found = {
        "driver": _driver(),
        "boards": len(glob.glob("/dev/nvidia[0-9]*")),
        "why": None,
        "devices": [],
        "versions": "",
        "cuda": None,
    }
    if importlib.util.find_spec("cupy") is None:
        found["why"] = "CuPy is not installed"
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no cuDNN: told below
            cuda.check_cuda_available()
    except RuntimeError as error:
        found["why"] = " ".join(str(error).split())
        return found
    runtime = cuda.cupy.cuda.runtime
    found["cuda"] = runtime.runtimeGetVersion() // 10
    found["versions"] = _versions(runtime)
    try:
        count = runtime.getDeviceCount()
        found["devices"] = [_device(runtime, number) for number in range(count)]
    except runtime.CUDARuntimeError as error:
        found["why"] = " ".join(str(error).split())
    return found


def too_old(found):
    """Return the GPUs for which this CUDA compiles no code.

    Args:
        found (dict): As :func:`seen` returns it.

    Returns:
        list of str: Names.
    """
    if not found["cuda"]:
        return []
    major = found["cuda"] // 100
    least = next((low for first, low in _LEAST_CAPABILITY if major >= first), 0)
    return sorted({d["name"] for d in found["devices"] if d["capability"] < least})


def _device(runtime, number):
    properties = runtime.getDeviceProperties(number)
    return {
        "name": properties["name"].decode(),
        "capability": 10 * properties["major"] + properties["minor"],
        "memory": properties["totalGlobalMem"],
        "bus": runtime.deviceGetPCIBusId(number),
    }


def _versions(runtime):
    told = [
        f"CuPy {cuda.cupy.__version__}",
        f"CUDA {_dotted(runtime.runtimeGetVersion())}",
        f"driver for CUDA {_dotted(runtime.driverGetVersion())}",
    ]
    nccl = getattr(cuda.cupy.cuda, "nccl", None)
    if nccl is not None and nccl.available:
        told.append(f"NCCL {nccl.get_version()}")
    else:
        told.append("no NCCL")
    told.append("cuDNN" if cuda.cudnn_enabled else "no cuDNN")
    return ", ".join(told)


def _dotted(version):
    return f"{version // 1000}.{version % 1000 // 10}"


def _driver():
    try:
        with open(_DRIVER) as file:
            words = file.readline().split()
    except OSError:
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), None)
