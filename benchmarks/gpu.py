"""Check this package on the GPUs of this machine, and compare its speed with others.

    python benchmarks/gpu.py [--quick] [--out DIR]

Measures the errors of the link on one rank and on several, trains a small network, and
compares the time of batch normalization with the limit set by memory bandwidth, and
with Chainer, ChainerMN and PyTorch. Writes gpu.json and, if Matplotlib is installed,
gpu.png. The exit status is 1 if a check fails, and 2 if there is no GPU.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LAUNCHER = Path(sys.executable).with_name("mpiexec")
BATCHES, ROUNDS = (2, 64, 512), 7
QUICK = (2,), 1
# Of max |a - b| / max |reference|, by the case.
LIMIT = 1e-5
AS_HOSTS = {False: "", True: " of two hosts"}
LIMITS = {"equal batches, float64": 1e-11, "second derivative": 1e-9}
# For root on Linux, with MPICH.
OWN_HOST = ["unshare", "--uts", "sh", "-c", 'hostname host$PMI_RANK && exec "$@"', "-"]
HOSTS = """
import socket
from mpi4py import MPI
names = MPI.COMM_WORLD.gather(socket.gethostname())
if names:
    assert len(set(names)) == 2 and "MPICH" in MPI.Get_library_version()
"""
DESCRIBE = """
import chainer_crossbn, json, platform, sys
import chainer, numpy
from chainer.backends import cuda
from chainer_crossbn.collectives.choice import has_nccl
found = {"python": platform.python_version(), "numpy": numpy.__version__}
count = 0
if cuda.available:
    runtime = cuda.cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        found["error"] = str(error)
    found["cupy"] = cuda.cupy.__version__
    found["cudnn"] = cuda.cudnn_enabled
    found["nccl"] = has_nccl()
    if count:
        found["runtime"] = runtime.runtimeGetVersion()
        found["driver"] = runtime.driverGetVersion()
        names = [runtime.getDeviceProperties(i)["name"] for i in range(count)]
        found["devices"] = [name.decode() for name in names]
else:
    try:
        cuda.check_cuda_available()
    except RuntimeError as error:
        # Chainer's words, then those of CuPy, in which the cause comes last.
        cause = str(error).rpartition("installation).")[2]
        cause = cause.rpartition("Original error:")[2].strip()
        found["error"] = cause.partition("\\n")[0]
found["n_devices"] = count
print(json.dumps(found))
"""


def execute(*command, n_ranks=None, env=None, hosts=False, timeout=600):
    """Run Python on some ranks; return its output, or None where it failed.

    With ``hosts`` each rank has a host name of its own, and talks to the others as from
    another machine: NCCL then lets them share a GPU.
    """
    start = [str(LAUNCHER) if LAUNCHER.exists() else "mpiexec", "-n", str(n_ranks)]
    if hosts:
        start += OWN_HOST
        env = {**(env or {}), "MPIR_CVAR_NOLOCAL": "1"}
    command = [sys.executable, *map(str, command)]
    try:
        done = subprocess.run(
            [*start, *command] if n_ranks else command,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
                ),
                "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "OMPI_MCA_rmaps_base_oversubscribe": "1",
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        print(f"  no end within {timeout} s")
        return None
    if done.returncode:
        print("  " + "\n  ".join(done.stderr.strip().splitlines()[-5:]))
        return None
    return done.stdout


def last_json(output):
    return None if output is None else json.loads(output.strip().splitlines()[-1])


def can_be_hosts():
    """Return whether two ranks can have host names of their own; say why not."""
    print("two ranks as two hosts: is it possible?", flush=True)
    return execute("-c", HOSTS, n_ranks=2, hosts=True, timeout=60) is not None


def ways_of(machine):
    """Return numbers of ranks, ways of their vectors, whether each rank is a host."""
    ways = [(1, "staged", False), (2, "staged", False)]
    if machine["nccl"]:
        most = machine["n_devices"]
        ways[0] = 1, "nccl", False
        ways += [(n, "nccl", False) for n in sorted({2, most}) if 1 < n <= most]
    if machine["hosts"]:
        ways.append((2, "nccl", True))
    return ways


def is_exact(case, found):
    if isinstance(found, str):
        return found == "shown"
    return all(value < LIMITS.get(case, LIMIT) for value in found)  # a NaN is not


def measure_exactness(machine):
    found = []
    for n_ranks, way, hosts in ways_of(machine):
        print(f"exactness: {n_ranks} ranks{AS_HOSTS[hosts]}, {way}", flush=True)
        cases = last_json(
            execute(
                *(HERE / "exactness.py", "--gpu"),
                n_ranks=n_ranks,
                env={"CHAINER_CROSSBN_COLLECTIVE": way},
                hosts=hosts,
            )
        )
        right = cases is not None and all(is_exact(*case) for case in cases.items())
        for case, values in (cases or {}).items():
            mark = "" if is_exact(case, values) else "  <- wrong"
            print(f"  {case:30} {values}{mark}")
        found.append(
            {
                "ranks": n_ranks,
                "way": way,
                "hosts": hosts,
                "cases": cases,
                "right": right,
            }
        )
    return found


def train(machine, n_ranks, hosts=False):
    """Train a small network; its loss has to fall."""
    print(f"training: {n_ranks} ranks{AS_HOSTS[hosts]}", flush=True)
    shared = n_ranks > machine["n_devices"] and not hosts
    communicator = "staged" if shared else None
    with tempfile.TemporaryDirectory() as out:
        flags = ["--gpu", "--dataset", "synthetic", "--train-size", 2000]
        flags += ["--test-size", 500, "--epoch", 3, "--batchsize", 16, "--width", 8]
        flags += ["--fc-units", 64, "--lr", 0.01, "--out", out, "--name", "run"]
        flags += ["--communicator", communicator] if communicator else []
        program = ROOT / "train_cifar.py", *flags
        if execute(*program, n_ranks=n_ranks, hosts=hosts) is None:
            return {"ranks": n_ranks, "hosts": hosts, "right": False}
        run = Path(out, "run")
        record, log = (
            json.loads((run / name).read_text()) for name in ("args.json", "log")
        )
    losses = [entry["main/loss"] for entry in log]
    print(f"  loss {' '.join(f'{loss:.3f}' for loss in losses)}")
    return {
        "ranks": n_ranks,
        "hosts": hosts,
        "communicator": record["arguments"]["communicator"],
        "collective": record["collective"],
        "log": log,
        "right": record["device"] == "GPU" and losses[-1] < losses[0],
    }


def time_layers(machine, batches, rounds):
    """Return, by ranks, local batch and implementation, the seconds of the rounds."""
    found = []
    for n_ranks in sorted({1, 2, machine["n_devices"]}):
        program = HERE / "gpu_layer.py", *batches
        env = {"BENCHMARK_ROUNDS": str(rounds)}
        times = last_json(execute(*program, n_ranks=n_ranks, env=env)) or {}
        for batch, by_name in times.items():
            for name, seconds in by_name.items():
                failed = isinstance(seconds, str)
                shown = seconds if failed else f"{median_ms(seconds):.3f} ms"
                print(f"time: {n_ranks} ranks, batch {batch}, {name}: {shown}")
                found.append(
                    {
                        "ranks": n_ranks,
                        "batch": int(batch),
                        "of": name,
                        "seconds": seconds,
                    }
                )
    return found


def median_ms(seconds):
    return statistics.median(seconds) * 1e3


def draw(times, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    batches = sorted({t["batch"] for t in times})
    figure, axes = plt.subplots(
        1, len(batches), figsize=(10, 4), layout="constrained", squeeze=False
    )
    for axis, batch in zip(axes.flat, batches):
        rows = [
            t for t in times if t["batch"] == batch and isinstance(t["seconds"], list)
        ]
        labels = [f"{t['of']}, {t['ranks']} ranks" for t in rows]
        axis.barh(labels, [median_ms(t["seconds"]) for t in rows])
        axis.invert_yaxis()
        axis.set(title=f"local batch {batch}", xlabel="forward and backward [ms]")
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(HERE / "results" / "gpu"))
    parser.add_argument("--quick", action="store_true", help="time one pass only")
    args = parser.parse_args()
    out = Path(args.out)
    machine = last_json(execute("-c", DESCRIBE))
    if machine is None or not machine["n_devices"]:
        reason = (machine or {}).get("error", "CuPy sees none")
        print(f"gpu.py: error: no GPU to check: {reason}", file=sys.stderr)
        return 2
    if not (
        Path(sys.executable).with_name("mpiexec").exists() or shutil.which("mpiexec")
    ):
        print("gpu.py: error: there is no mpiexec on PATH", file=sys.stderr)
        return 2
    one_by_nccl = machine["nccl"] and machine["n_devices"] == 1
    machine["hosts"] = one_by_nccl and can_be_hosts()
    print(json.dumps(machine), flush=True)
    exactness = measure_exactness(machine)
    training = [train(machine, n) for n in sorted({1, 2, machine["n_devices"]})]
    if machine["hosts"]:
        training.append(train(machine, 2, hosts=True))
    times = time_layers(machine, *(QUICK if args.quick else (BATCHES, ROUNDS)))
    result = {
        "machine": machine,
        "quick": args.quick,
        "exactness": exactness,
        "training": training,
        "times": times,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {out / 'gpu.json'}")
    if importlib.util.find_spec("matplotlib"):
        draw(times, out / "gpu.png")
        print(f"wrote {out / 'gpu.png'}")
    right = all(part["right"] for part in (*exactness, *training))
    print("all checks passed" if right else "a check failed: see above")
    return not right


if __name__ == "__main__":
    sys.exit(main())
