"""Time iterations of 8 ranks as 8 processes, and as one process with virtual ranks.

    python benchmarks/virtual_ranks.py [--rounds N]

VGG16 of width 16 with 2 images per rank, one thread per process, by train_cifar.py. The
configurations run in turn, in an order that rotates between rounds. Prints the medians
of the times and of the ratios per round, and writes them to
results/virtual_ranks.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "virtual_ranks.json"
N_RANKS = 8
ITERATIONS = 60  # of an epoch, of which the first warms up
FLAGS = (
    *("--dataset", "synthetic", "--train-size", 2 * N_RANKS * ITERATIONS),
    *("--test-size", 20, "--eval-train", 20, "--epoch", 4, "--batchsize", 2),
    *("--width", 16, "--fc-units", 128, "--threads", 1, "--cpu", "--no-model"),
    *("--snapshot-interval", 0),
)
# Name -> normalization, processes of a run, runs side by side.
CONFIGURATIONS = {
    "8 processes": ("multigpu", 8, 1),
    "1 process": ("multigpu", 1, 1),
    "1 process, two side by side": ("multigpu", 1, 2),
    "1 process, normalBN": ("normal", 1, 1),
}
# Numerator, denominator, and the largest ratio that is aimed at.
RATIOS = (
    ("1 process", "8 processes", 0.3),
    ("1 process, two side by side", "8 processes", 0.4),
    ("1 process, normalBN", "1 process", 1.1),
)


def iteration_time(bn, n_processes, n_runs):
    """Return the seconds of an iteration of the slowest of some runs."""
    launcher = Path(sys.executable).parent / "mpiexec"
    with tempfile.TemporaryDirectory() as out:
        processes = []
        for name in map(str, range(n_runs)):
            command = [launcher, "-n", n_processes, sys.executable]
            command += [ROOT / "train_cifar.py", *FLAGS, "--bn", bn]
            command += ["--virtual-ranks", N_RANKS // n_processes]
            command += ["--out", out, "--name", name]
            processes.append(
                subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
            )
        if any([process.wait(600) for process in processes]):
            raise SystemExit("a run failed")
        return max(_time_of(Path(out, name, "log")) for name in map(str, range(n_runs)))


def _time_of(log):
    times = [entry["train_time"] for entry in json.loads(log.read_text())]
    return statistics.median(b - a for a, b in zip(times, times[1:])) / ITERATIONS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    names = list(CONFIGURATIONS)
    times = {name: [] for name in names}
    for i in range(rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(iteration_time(*CONFIGURATIONS[name]))
    result = {
        "rounds": rounds,
        "milliseconds": {k: 1e3 * statistics.median(v) for k, v in times.items()},
        "ratios": [],
    }
    for name, milliseconds in result["milliseconds"].items():
        print(f"{name:30}{milliseconds:8.1f} ms")
    for numerator, denominator, target in RATIOS:
        ratios = [a / b for a, b in zip(times[numerator], times[denominator])]
        entry = {
            "of": numerator,
            "to": denominator,
            "median": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
            "target": target,
        }
        result["ratios"].append(entry)
        low, high = entry["range"]
        print(
            f"{numerator} / {denominator}: {entry['median']:.2f} "
            f"({low:.2f}-{high:.2f}), target {target}"
        )
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
