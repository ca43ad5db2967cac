"""Measure the errors of this package's link and of ChainerMN's, side by side.

    mpiexec -n 2 python benchmarks/exactness.py [--gpu]

Prints, for the cases of docs/exactness.md, the largest error of y and gx over the
ranks, as max |a - b| / max |reference|, against the whole batch in long double. With
--gpu, it measures only this package's link, on GPUs, and prints JSON.
"""

import json
import sys
import warnings
from pathlib import Path

import chainer_crossbn  # makes Chainer importable

# isort: split
import chainer
import chainer.functions as F
import chainermn
import numpy as np
from chainer import backend
from chainermn.links import MultiNodeBatchNormalization

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from reference import batch_normalization, error  # noqa: E402

LINKS = {
    "this package": chainer_crossbn.CrossBatchNormalization,
    "ChainerMN": MultiNodeBatchNormalization,
}
C = 16
ON_GPU = sys.argv[1:] == ["--gpu"]


def device_of(comm):
    if not ON_GPU:
        return chainer.get_device("@numpy")
    n_devices = chainer.backends.cuda.cupy.cuda.runtime.getDeviceCount()
    device = chainer.get_device(f"@cupy:{comm.intra_rank % n_devices}")
    device.use()
    return device


def batch(shape, dtype, mean=3, std=2):
    state = np.random.RandomState(0)
    x = state.randn(*shape) * std + mean
    return x.astype(dtype), state.randn(*shape).astype(dtype)


def run(link, x, gy):
    link.to_device(device_of(link.comm))
    x = chainer.Variable(link.device.send(x))
    y = link(x)
    y.grad = link.device.send(gy)
    link.cleargrads()
    y.backward()
    return to_host(y.array), to_host(x.grad)


def to_host(array):
    return backend.CpuDevice().send(array)


def errors(comm, make, counts, tail, dtype, **options):
    """Return the errors of y and gx, or the error that was raised."""
    ends = np.cumsum([0, *counts])
    mine = slice(ends[comm.rank], ends[comm.rank + 1])
    x, gy = batch((sum(counts), C, *tail), dtype, **options)
    found = None
    try:
        y, gx = run(make(C, comm, dtype=dtype), x[mine], gy[mine])
    except Exception as raised:
        found = type(raised).__name__
    else:
        whole = batch_normalization(x, gy, np.ones(C), np.zeros(C))
        found = error(y, whole["y"][mine]), error(gx, whole["gx"][mine])
    return merged(comm, found)


def merged(comm, found):
    """Return the worst of the ranks' results."""
    results = comm.mpi_comm.allgather(found)
    raised = [result for result in results if isinstance(result, str)]
    if raised:
        return raised[0]
    return [max(values, key=lambda v: (np.isnan(v), v)) for values in zip(*results)]


def second_derivative(comm, make):
    """Return the error of the gradient of a gradient penalty."""
    counts = [4] * comm.size
    x, gy = batch((sum(counts), C), "float64")
    mine = slice(4 * comm.rank, 4 * comm.rank + 4)

    link = make(C, comm, dtype="float64")
    link.to_device(device_of(comm))

    def gradient(normalize, device, x, gy):
        x, gy = chainer.Variable(device.send(x)), device.send(gy)
        y = normalize(x)
        (gx,) = chainer.grad([F.sum(y * y * gy)], [x], enable_double_backprop=True)
        F.sum(gx * gx).backward()
        return to_host(x.grad)

    def reference(v):
        return F.batch_normalization(v, np.ones(C), np.zeros(C))

    whole = gradient(reference, chainer.get_device("@numpy"), x, gy)
    ours = gradient(link, link.device, x[mine], gy[mine])
    return merged(comm, (error(ours, whole[mine]),))


def running_variance(comm, make):
    """Return what is left of the running variance, of 0.9 + 0.1 or so, after a step."""
    link = make(C, comm)
    x, gy = batch((4, C), "float32", mean=0, std=1)
    run(link, x, gy)
    whole = batch_normalization(
        *batch((4, C), "float32", 0, 1), np.ones(C), np.zeros(C)
    )
    n = 4 * comm.size
    expected = 0.9 + 0.1 * whole["var"] * n / (n - 1)
    return merged(comm, (error(to_host(link.avg_var), expected),))


def other_order(comm, make):
    """Return what happens where one rank reaches two layers in another order."""
    links = [make(C, comm) for _ in range(2)]
    x, _ = batch((4, C), "float32")
    for _ in range(3):
        links[1](links[0](x))
    first, second = links if comm.rank else links[::-1]
    try:
        second(F.sin(first(x)))
    except chainer_crossbn.CollectiveError:
        return "CollectiveError"
    return "no error, wrong statistics"


def nan_on_one_rank(comm, make):
    """Return whether all ranks see a NaN that one has."""
    x, gy = batch((4, C), "float32")
    if comm.rank == 0:
        x[0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        y, _ = run(make(C, comm), x, gy)
    shown = np.isnan(y[:, 0]).all() and np.isfinite(y[:, 1:]).all()
    return "shown" if all(comm.mpi_comm.allgather(bool(shown))) else "hidden"


CASES = {
    "equal batches, float32": lambda c, m: errors(c, m, [8] * c.size, (4,), "float32"),
    "equal batches, float64": lambda c, m: errors(c, m, [8] * c.size, (4,), "float64"),
    "unequal batches": lambda c, m: errors(
        c, m, [8, 4, 1, 3, 2, 7, 5, 6][: c.size], (4,), "float32"
    ),
    "a rank without images": lambda c, m: errors(
        c, m, [8] * max(c.size - 1, 1) + [0] * (c.size > 1), (4,), "float32"
    ),
    "one value a channel and rank": lambda c, m: errors(
        c, m, [1] * c.size, (), "float32"
    ),
    "mean 1000, std 0.1": lambda c, m: errors(
        c, m, [8] * c.size, (8, 8), "float32", mean=1000, std=0.1
    ),
    "constant 1000": lambda c, m: errors(
        c, m, [8] * c.size, (8, 8), "float32", mean=1000, std=0
    ),
    "a NaN on one rank": nan_on_one_rank,
    "running variance": running_variance,
    "second derivative": second_derivative,
    "other order": other_order,
}


def text(found):
    return found if isinstance(found, str) else " ".join(f"{v:.1e}" for v in found)


def print_of_gpus(comm):
    link = LINKS["this package"]
    # By NCCL the other order is found when it comes to the host, not at once.
    cases = {case: m for case, m in CASES.items() if m is not other_order}
    found = {case: measure(comm, link) for case, measure in cases.items()}
    if comm.rank == 0:
        print(json.dumps(found), flush=True)


def main():
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    comm = chainermn.create_communicator("naive")
    if ON_GPU:
        print_of_gpus(comm)
        return
    if comm.rank == 0:
        print(f"{comm.size} ranks; errors of y and gx")
        print(f"{'':30}" + "".join(f"{name:28}" for name in LINKS))
    for case, measure in CASES.items():
        cells = [f"{text(measure(comm, make)):28}" for make in LINKS.values()]
        if comm.rank == 0:
            print(f"{case:30}" + "".join(cells), flush=True)


main()
