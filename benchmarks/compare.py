"""Time this package beside ChainerMN and PyTorch, and print and store the ratios.

    python benchmarks/compare.py [--quick] [--only NAME]

Each pair of implementations runs in turn, a process each, some rounds of it, so that
what else happens on the machine meets both. A ratio is the median of the rounds'
ratios, its interval that of the medians of resampled rounds (bootstrap, 95 %).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
# Name -> program, arguments behind the implementation, ranks, ours, theirs, quantity
# and target of ours / theirs.
PAIRS = {
    "BN at 64 / ChainerMN's": (
        "layer",
        (64,),
        2,
        "multigpu",
        "chainermn",
        "seconds",
        0.25,
    ),
    "BN at 64 / PyTorch's local": (
        "layer",
        (64,),
        2,
        "multigpu",
        "torch",
        "seconds",
        0.40,
    ),
    "BN at 2 / ChainerMN's": (
        "layer",
        (2,),
        2,
        "multigpu",
        "chainermn",
        "seconds",
        0.5,
    ),
    "step at 64: multigpu / normal": (
        *("step", (64, 64, 4096), 2, "multigpu", "normal", "seconds", 1.02),
    ),
    "step at 2: multigpu / normal": (
        *("step", (2, 64, 4096), 2, "multigpu", "normal", "seconds", 1.15),
    ),
    "step at 64 / ChainerMN": (
        *("step", (64, 64, 4096), 2, "multigpu", "chainermn", "seconds", 1 / 4),
    ),
    "step at 64 / PyTorch": (
        *("step", (64, 64, 4096), 2, "multigpu", "torch", "seconds", 1 / 1.5),
    ),
    "step at 64 / PyTorch, channels last": (
        *("step", (64, 64, 4096), 2, "multigpu", "torch-last", "seconds", 1 / 1.5),
    ),
    "step at 2 / ChainerMN": (
        *("step", (2, 64, 4096), 2, "multigpu", "chainermn", "seconds", 1 / 2),
    ),
    "step at 2 / PyTorch": (
        *("step", (2, 64, 4096), 2, "multigpu", "torch", "seconds", 1 / 2),
    ),
    "step at 2 / PyTorch, channels last": (
        *("step", (2, 64, 4096), 2, "multigpu", "torch-last", "seconds", 1 / 2),
    ),
    "8 ranks, width 16, at 2 / ChainerMN": (
        *("step", (2, 16, 128), 8, "multigpu", "chainermn", "seconds", 1 / 2),
    ),
    "peak memory at 64 / ChainerMN": (
        *("step", (64, 64, 4096), 2, "multigpu", "chainermn", "peak_bytes", 0.8),
    ),
}


def measure(program, implementation, sizes, n_ranks, quantity):
    launcher = Path(sys.executable).parent / "mpiexec"
    done = subprocess.run(
        [
            *(str(launcher), "-n", str(n_ranks), sys.executable),
            *(str(HERE / f"{program}.py"), implementation, *map(str, sizes)),
        ],
        env={
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(HERE.parent),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{program} {implementation}: {done.stderr[-2000:]}")
    return json.loads(lines[0])[quantity]


def interval(ratios):
    state = np.random.RandomState(0)
    medians = np.median(state.choice(ratios, (2000, len(ratios))), axis=1)
    return [float(v) for v in np.percentile(medians, [2.5, 97.5])]


def compare(pair, rounds):
    program, sizes, n_ranks, ours, theirs, quantity, target = pair
    values = {ours: [], theirs: []}
    for i in range(rounds):
        order = (ours, theirs) if i % 2 else (theirs, ours)
        for implementation in order:
            values[implementation].append(
                measure(program, implementation, sizes, n_ranks, quantity)
            )
    ratios = [a / b for a, b in zip(values[ours], values[theirs])]
    return {
        "ours": statistics.median(values[ours]),
        "theirs": statistics.median(values[theirs]),
        "unit": quantity,
        "ratio": statistics.median(ratios),
        "interval": interval(ratios),
        "target": target,
        "rounds": rounds,
    }


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
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each pair")
    parser.add_argument("--only", default="", help="pairs whose name has this in it")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write")
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    results = {}
    print(f"{'':38}{'ours':>10}{'theirs':>10}{'ratio':>8}  interval       target")
    for name, pair in PAIRS.items():
        if args.only not in name:
            continue
        found = results[name] = compare(pair, rounds)
        scale = 1e3 if found["unit"] == "seconds" else 1e-6
        low, high = found["interval"]
        print(
            f"{name:38}{found['ours'] * scale:10.1f}{found['theirs'] * scale:10.1f}"
            f"{found['ratio']:8.3f}  {low:.3f}-{high:.3f}    {found['target']:.3f}",
            flush=True,
        )
    print("milliseconds, or megabytes")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "compare.json"
    path.write_text(
        json.dumps({"machine": machine(), "pairs": results}, indent=2) + "\n"
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
