"""Check this package on the GPUs of this machine, and time it beside others.

    python benchmarks/gpu.py [--quick] [--out DIR]

Measures how exact the link is on one rank and on several, trains a small network, and
times batch normalization against the limit that memory sets, Chainer's, ChainerMN's
and PyTorch's. Writes gpu.json and, where Matplotlib is there, gpu.png. Its exit status
is 1 where something is wrong, and 2 where there is no GPU.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LAUNCHER = Path(sys.executable).with_name("mpiexec")
BATCHES = 2, 64
QUICK = (2,), {"BENCHMARK_PASSES": "1"}
# Of max |a - b| / max |reference|, by the case.
LIMIT = 1e-5
LIMITS = {"equal batches, float64": 1e-11, "second derivative": 1e-9}
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
        found["error"] = str(error).rpartition(")")[2]
found["n_devices"] = count
print(json.dumps(found))
"""


def execute(*command, n_ranks=None, env=None, timeout=600):
    """Run Python on some ranks; return its output, or None where it failed."""
    start = [str(LAUNCHER) if LAUNCHER.exists() else "mpiexec", "-n", str(n_ranks)]
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


def ways_of(machine):
    """Return pairs of a number of ranks and the way of their vectors."""
    ways = [(1, "staged"), (2, "staged")]
    if machine["nccl"]:
        most = machine["n_devices"]
        ways[0] = 1, "nccl"
        ways += [(n, "nccl") for n in sorted({2, most}) if 1 < n <= most]
    return ways


def is_exact(case, found):
    if isinstance(found, str):
        return found == "shown"
    return all(value < LIMITS.get(case, LIMIT) for value in found)  # a NaN is not


def measure_exactness(machine):
    found = []
    for n_ranks, way in ways_of(machine):
        print(f"exactness: {n_ranks} ranks, {way}", flush=True)
        cases = last_json(
            execute(
                *(HERE / "exactness.py", "--gpu"),
                n_ranks=n_ranks,
                env={"CHAINER_CROSSBN_COLLECTIVE": way},
            )
        )
        right = cases is not None and all(is_exact(*case) for case in cases.items())
        for case, values in (cases or {}).items():
            mark = "" if is_exact(case, values) else "  <- wrong"
            print(f"  {case:30} {values}{mark}")
        found.append({"ranks": n_ranks, "way": way, "cases": cases, "right": right})
    return found


def train(machine, n_ranks):
    """Train a small network; its loss has to fall."""
    print(f"training: {n_ranks} ranks", flush=True)
    communicator = "staged" if n_ranks > machine["n_devices"] else None
    with tempfile.TemporaryDirectory() as out:
        flags = ["--gpu", "--dataset", "synthetic", "--train-size", 2000]
        flags += ["--test-size", 500, "--epoch", 3, "--batchsize", 16, "--width", 8]
        flags += ["--fc-units", 64, "--lr", 0.01, "--out", out, "--name", "run"]
        flags += ["--communicator", communicator] if communicator else []
        if execute(ROOT / "train_cifar.py", *flags, n_ranks=n_ranks) is None:
            return {"ranks": n_ranks, "right": False}
        run = Path(out, "run")
        record, log = (
            json.loads((run / name).read_text()) for name in ("args.json", "log")
        )
    losses = [entry["main/loss"] for entry in log]
    print(f"  loss {' '.join(f'{loss:.3f}' for loss in losses)}")
    return {
        "ranks": n_ranks,
        "collective": record["collective"],
        "log": log,
        "right": record["device"] == "GPU" and losses[-1] < losses[0],
    }


def time_layers(machine, batches, env):
    has_torch = importlib.util.find_spec("torch") is not None
    found = []
    for n_ranks in sorted({1, 2, machine["n_devices"]}):
        names = ["copy", "normal", "chainer"] if n_ranks == 1 else ["multigpu"]
        names += ["chainermn"] if n_ranks > 1 else []
        if has_torch:
            names += ["torch"] if n_ranks == 1 else []
            names += ["torch-sync"] if n_ranks <= machine["n_devices"] else []
        for batch in batches:
            for name in names:
                program = HERE / "gpu_layer.py", name, batch
                timed = last_json(execute(*program, n_ranks=n_ranks, env=env))
                seconds = timed and timed["seconds"]
                shown = "failed" if seconds is None else f"{seconds * 1e3:.3f} ms"
                print(f"time: {n_ranks} ranks, batch {batch}, {name}: {shown}")
                found.append(
                    {"ranks": n_ranks, "batch": batch, "of": name, "seconds": seconds}
                )
    return found


def draw(times, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    batches = sorted({t["batch"] for t in times})
    figure, axes = plt.subplots(
        1, len(batches), figsize=(10, 4), layout="constrained", squeeze=False
    )
    for axis, batch in zip(axes.flat, batches):
        rows = [t for t in times if t["batch"] == batch and t["seconds"]]
        labels = [f"{t['of']}, {t['ranks']} ranks" for t in rows]
        axis.barh(labels, [t["seconds"] * 1e3 for t in rows])
        axis.invert_yaxis()
        axis.set(title=f"local batch {batch}", xlabel="forward and backward [ms]")
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(HERE / "results" / "gpu"))
    parser.add_argument("--quick", action="store_true", help="times by one pass alone")
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
    print(json.dumps(machine), flush=True)
    exactness = measure_exactness(machine)
    training = [train(machine, n) for n in sorted({1, 2, machine["n_devices"]})]
    times = time_layers(machine, *(QUICK if args.quick else (BATCHES, None)))
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
    print("all is right" if right else "something is wrong: see above")
    return not right


if __name__ == "__main__":
    sys.exit(main())
