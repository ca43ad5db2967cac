"""Time this package beside ChainerMN and PyTorch, and store, print and draw the ratios.

    python benchmarks/compare.py [--quick] [--only NAME] [--update] [--rounds N]
        [--out DIR]

The implementations of a group run in turn, each in its own process, for several rounds.
Their order rotates between rounds, so that other load on the machine affects all of
them. A ratio is the median of the ratios of the rounds; its interval is the 95 %
bootstrap interval of that median.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import threadpoolctl
from figure import draw

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TRAIN = ROOT / "train_cifar.py"
RESULTS = HERE / "results"

OURS = "multigpu"
ALL = (OURS, "normal", "chainermn", "chainermn-normal", "torch", "torch-last")
PARTS_OF_RESULTS = ("groups", "pairs", "sweeps", "ablation")
PARTS = ("convolution", "pooling", "optimizer", "communicator", "memory", "link")


class Group(NamedTuple):
    """Implementations that are timed side by side, on the same shapes."""

    program: str
    sizes: tuple  # arguments behind the implementation
    n_ranks: int
    implementations: tuple


class Pair(NamedTuple):
    """What of two implementations is compared, and the target of ours / theirs."""

    title: str
    group: str
    ours: str
    theirs: tuple  # if they are more, the best of the round
    quantity: str
    target: float


TORCH = ("torch", "torch-last")
FULL = (64, 4096)  # width and units of the FC layers
GROUPS = {
    "BN, 64 images": Group(
        *("layer", (64,), 2), (OURS, "normal", "chainermn", "torch", "copy")
    ),
    "BN, 2 images": Group("layer", (2,), 2, (OURS, "normal", "chainermn", "torch")),
    "convolutions": Group("convolution", (64,), 1, ("ours", "chainer", *TORCH)),
    "step, 64 images": Group("step", (64, *FULL), 2, ALL),
    "step, 2 images": Group("step", (2, *FULL), 2, ALL),
    "8 ranks": Group(
        *("step", (2, 16, 128), 8),
        (OURS, "normal", "chainermn", "torch", "profiled"),
    ),
}
PAIRS = [
    Pair("BN at 64, to ChainerMN's", "BN, 64 images", OURS, ("chainermn",), "s", 0.25),
    Pair("BN at 64, to PyTorch's local", "BN, 64 images", OURS, ("torch",), "s", 0.4),
    Pair("BN at 64, to copying as much", "BN, 64 images", OURS, ("copy",), "s", 1),
    Pair("BN at 2, to ChainerMN's", "BN, 2 images", OURS, ("chainermn",), "s", 0.5),
    Pair("convolutions, to PyTorch's", "convolutions", "ours", TORCH, "s", 0.7),
    Pair("step at 64, to normal", "step, 64 images", OURS, ("normal",), "s", 1.02),
    Pair("step at 2, to normal", "step, 2 images", OURS, ("normal",), "s", 1.15),
    Pair(
        *("step at 64, to ChainerMN", "step, 64 images", OURS),
        *(("chainermn",), "s", 1 / 4),
    ),
    Pair("step at 64, to PyTorch", "step, 64 images", OURS, TORCH, "s", 1 / 1.5),
    Pair("step at 2, to ChainerMN", "step, 2 images", OURS, ("chainermn",), "s", 1 / 2),
    Pair("step at 2, to PyTorch", "step, 2 images", OURS, TORCH, "s", 1 / 2),
    Pair("8 ranks, to ChainerMN", "8 ranks", OURS, ("chainermn",), "s", 1 / 2),
    Pair("8 ranks, profiled, to not", "8 ranks", "profiled", (OURS,), "s", 1.02),
    Pair(
        *("memory at 64, to ChainerMN", "step, 64 images", OURS),
        *(("chainermn",), "bytes", 0.8),
    ),
]
# Where more rounds are needed: to tell 1.00 from 1.02, and where ranks share cores.
MORE = {
    "step, 64 images": ((OURS, "normal"), 16),
    "8 ranks": ((OURS, "chainermn", "profiled"), 12),
}

COMPARED = (OURS, "normal", "chainermn", "torch")
SWEEPS = {
    "ranks (width 16, 16 images a rank)": {
        n: Group("step", (16, 16, 128), n, COMPARED) for n in (1, 2, 4, 8)
    },
    "images a rank (2 ranks)": {
        n: Group("step", (n, *FULL), 2, (OURS, "normal", "chainermn", "torch-last"))
        for n in (4, 8, 16, 32)
    },
}
ABLATION = {
    n: Group("step", (n, *FULL), 2, (OURS, *(f"without-{part}" for part in PARTS)))
    for n in (2, 64)
}


def command(n_ranks, *arguments):
    """Return the command of ``python arguments...`` on some ranks."""
    launcher = Path(sys.executable).parent / "mpiexec"
    return [str(v) for v in (launcher, "-n", n_ranks, sys.executable, *arguments)]


def environment():
    return {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


def launch(n_ranks, *arguments):
    """Run a worker on some ranks; return what it prints."""
    done = subprocess.run(
        command(n_ranks, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
    return json.loads(lines[0])


def measure(group, rounds, implementations=None):
    """Return, of each implementation, what each round measured."""
    names = implementations or group.implementations
    found = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            program = HERE / f"{group.program}.py"
            found[name].append(launch(group.n_ranks, program, name, *group.sizes))
    return found


def values(rounds, quantity):
    key = {"s": "seconds", "bytes": "peak_bytes"}[quantity]
    return [found[key] for found in rounds]


def interval(ratios):
    state = np.random.RandomState(0)
    medians = np.median(state.choice(ratios, (2000, len(ratios))), axis=1)
    return [float(v) for v in np.percentile(medians, [2.5, 97.5])]


def compare(pair, found):
    ours = values(found[pair.ours], pair.quantity)
    theirs = [values(found[name], pair.quantity) for name in pair.theirs]
    best = min(theirs, key=statistics.median)
    ratios = [a / b for a, b in zip(ours, best)]
    return {
        "ours": statistics.median(ours),
        "theirs": statistics.median(best),
        "unit": pair.quantity,
        "ratio": statistics.median(ratios),
        "interval": interval(ratios),
        "target": pair.target,
        "rounds": len(ratios),
    }


def summary(found):
    """Return median and range of the seconds of each implementation."""
    return {
        name: [statistics.median(s), min(s), max(s)]
        for name, s in ((name, values(rounds, "s")) for name, rounds in found.items())
    }


def start_up():
    """Return the seconds from the start of a run to its first step and evaluation."""
    folder = tempfile.mkdtemp()
    seconds = []
    for i in range(3):
        started = time.perf_counter()
        process = subprocess.Popen(
            command(
                *(2, TRAIN, "--dataset", "synthetic", "--train-size", 128),
                *("--epoch", 1, "--test-size", 2, "--eval-train", 2),
                *("--out", folder, "--seed", i),
            ),
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in process.stdout:
            if line.startswith("1 "):  # the log's line of the first epoch
                seconds.append(time.perf_counter() - started)
        process.wait()
    shutil.rmtree(folder)
    return statistics.median(seconds[1:])


def machine():
    info = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    models = [
        line.split(":")[1].strip() for line in info.splitlines() if "model name" in line
    ]
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "")
    vector = next((f for f in ("avx512f", "avx2", "avx") if f in flags), "unknown")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "vector": vector,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": threadpoolctl.threadpool_info()[0].get("architecture"),
        "torch": metadata.version("torch"),
    }


def print_pair(title, found):
    scale = 1e3 if found["unit"] == "s" else 1e-6
    low, high = found["interval"]
    print(
        f"{title:32}{found['ours'] * scale:9.1f}{found['theirs'] * scale:9.1f}"
        f"{found['ratio']:8.3f}  {low:.3f}-{high:.3f}    {found['target']:.3f}",
        flush=True,
    )


def print_medians(title, found):
    cells = (f"{name} {median * 1e3:.1f}" for name, (median, *_) in found.items())
    print(f"{title}: {', '.join(cells)} ms", flush=True)


def run(rounds, only, quick):
    results = {"machine": machine(), **{part: {} for part in PARTS_OF_RESULTS}}
    print(f"{'':32}{'ours':>9}{'theirs':>9}{'ratio':>8}  interval       target")
    for name, group in GROUPS.items():
        if only not in name:
            continue
        found = measure(group, rounds)
        if name in MORE and not quick:
            implementations, of_these = MORE[name]
            more = measure(group, of_these - rounds, implementations)
            for implementation, more_rounds in more.items():
                found[implementation] += more_rounds
        results["groups"][name] = summary(found)
        for pair in PAIRS:
            if pair.group == name:
                results["pairs"][pair.title] = compare(pair, found)
                print_pair(pair.title, results["pairs"][pair.title])
    print("milliseconds, or megabytes")
    if quick:
        return results
    if not only:
        results["start_up"] = seconds = start_up()
        print(f"start to first step and evaluation: {seconds:.1f} s (target 5)")
    fewer = rounds if only else max(1, rounds // 2)
    for title, groups in SWEEPS.items():
        if only in title:
            sweep = results["sweeps"][title] = {}
            for n, group in groups.items():
                sweep[n] = summary(measure(group, fewer))
                print_medians(f"{title}: {n}", sweep[n])
    for n, group in ABLATION.items():
        if only in f"ablation at {n}":
            results["ablation"][str(n)] = summary(measure(group, fewer))
            print_medians(f"ablation at {n}", results["ablation"][str(n)])
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of the pairs")
    parser.add_argument(
        "--update",
        action="store_true",
        help="replace these groups in the stored results of the same machine",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds per group")
    parser.add_argument("--only", default="", help="groups whose name contains this")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"output directory (for complete results: {RESULTS.relative_to(ROOT)})",
    )
    args = parser.parse_args()
    if args.update and (args.quick or not args.only):
        parser.error("--update goes with --only, and not with --quick")
    if args.update:
        stored = json.loads((RESULTS / "compare.json").read_text())
        if stored["machine"] != machine():
            raise SystemExit("the stored results are of another machine")
    results = run(1 if args.quick else args.rounds, args.only, args.quick)
    if args.update:
        for part in PARTS_OF_RESULTS:
            stored[part].update(results[part])
        results = stored
    is_whole = "start_up" in results
    out = args.out or (RESULTS if is_whole else None)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    path = out / "compare.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {path}")
    if is_whole:
        draw(json.loads(path.read_text()), out / "compare.png")


if __name__ == "__main__":
    main()
