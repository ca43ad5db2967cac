"""Kill a rank of a run again and again; does it end as if nothing had happened?

    python tests/faults/campaign.py 100

Small runs on 2 to 4 ranks are started by mpiexec with --resume auto. At a random
moment, half of the time while a snapshot is written, a random rank gets SIGKILL. Runs
that come to their end are compared, log and model bit by bit, with one that was left
alone. Prints what was counted; the exit status is 1 if any run differed or failed, or
left a process. It needs Linux.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MARK = f"CHAINER_CROSSBN_CAMPAIGN={uuid.uuid4().hex}"
SETTINGS = [("normal", 3), ("multigpu", 2), ("none", 4)]
FLAGS = (
    *("--width", 1, "--fc-units", 4, "--batchsize", 4, "--epoch", 6, "--cpu"),
    *("--dataset", "synthetic", "--train-size", 42, "--test-size", 21),
    *("--dropout", 0.5, "--lr-step", 2, "--snapshot-interval", 0.3),
)
TIMES = {"elapsed_time", "train_time", "images_per_second"}

# What MPICH and Open MPI have in the environment of a rank.
_OF_RANKS = (b"PMI_RANK=", b"OMPI_COMM_WORLD_RANK=")

# All ranks have to be gone by then.
DEATH_SECONDS = 5
# A run that takes longer hangs.
RUN_SECONDS = 600


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    counts = Counter(dict.fromkeys(Campaign.COUNTED, 0))
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            for index in itertools.count():
                if counts["kills"] >= args.kills:
                    break
                setting = SETTINGS[index % len(SETTINGS)]
                campaign = Campaign(Path(folder), *setting, chance, counts)
                campaign.run(index, args.kills)
    finally:
        print(", ".join(f"{what} {counts[what]}" for what in Campaign.COUNTED))
        print(f"{(time.monotonic() - started) / 60:.0f} minutes", flush=True)
    return any(counts[what] for what in ("mismatches", "failures", "orphans"))


class Campaign:
    """Kills the ranks of one run until it has made its way to the end.

    Args:
        folder (pathlib.Path): Where runs go.
        bn (str): Value of ``--bn``.
        n_ranks (int): Number of ranks.
        chance (random.Random): Decides when which rank is killed.
        counts (collections.Counter): What has happened so far.
    """

    COUNTED = (
        *("runs", "kills", "in a snapshot", "resumes", "begun anew", "skipped"),
        *("mismatches", "failures", "orphans"),
    )

    def __init__(self, folder, bn, n_ranks, chance, counts):
        self._folder = folder
        self._bn = bn
        self._n_ranks = n_ranks
        self._chance = chance
        self._counts = counts

    def run(self, index, kills):
        """Make one run, with as many kills as there may be in all."""
        reference = self._folder / f"reference-{self._bn}-{self._n_ranks}"
        if not reference.exists():
            self._start(reference, None)
        run = self._folder / f"run-{index}"
        done = False
        while not done:
            how = self._chance.choice(["any time", "training", *["in a snapshot"] * 2])
            done = self._start(run, how if self._counts["kills"] < kills else None)
        self._counts["runs"] += 1
        if result(run) != result(reference):
            self._counts["mismatches"] += 1
            print(f"{run.name}: log or model differs", flush=True)

    def _start(self, run, how):
        """Start the run, and kill a rank of it; return whether it came to its end."""
        resumed = (run / "snapshots").exists()
        command = [
            *(_mpiexec(), "-n", self._n_ranks, sys.executable, ROOT / "train_cifar.py"),
            *(*FLAGS, "--bn", self._bn, "--out", run.parent, "--name", run.name),
            *("--resume", "auto"),
        ]
        name, _, value = MARK.partition("=")
        with open(self._folder / "output", "w+") as output:
            launcher = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, name: value, "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            killed = how is not None and self._kill(run, launcher, how)
            try:
                status = launcher.wait(RUN_SECONDS)
            except subprocess.TimeoutExpired:
                launcher.kill()
                status = "none, it hangs"
            self._look_for_orphans()
            output.seek(0)
            shown = output.read()
        self._counts["resumes"] += resumed
        self._counts["begun anew"] += "starting again" in shown
        self._counts["skipped"] += "is damaged and skipped" in shown
        if killed:
            self._counts["kills"] += 1
            self._counts["in a snapshot"] += killed == "in a snapshot"
            print(f"kill {self._counts['kills']}: {run.name}, {how}", flush=True)
        if status and (not killed or "Traceback" in shown or "error:" in shown):
            self._counts["failures"] += 1
            print(f"{run.name}: exit status {status}\n{shown}", flush=True)
            raise SystemExit(1)
        return status == 0

    def _kill(self, run, launcher, how):
        """Wait for a moment, and kill a rank; return what it was at, if it lived."""
        chance = self._chance
        if how == "any time":
            _wait(launcher, lambda: False, chance.uniform(0, 10))
        else:
            # The snapshots that a run finds are there before it writes its own.
            _wait(launcher, lambda: len(_partials(run)) > 0, RUN_SECONDS)
            if how == "training":
                _wait(launcher, lambda: False, chance.uniform(0, 3))
            else:
                for _ in range(chance.randrange(4)):
                    _wait(launcher, lambda: not _partials(run), 1)
                    _wait(launcher, lambda: len(_partials(run)) > 0, 10)
                time.sleep(chance.uniform(0, 0.02))
        ranks = _ranks()
        if not ranks or launcher.poll() is not None:
            return None
        victim = chance.choice(sorted(ranks))
        at = "in a snapshot" if _partials(run) else "elsewhere"
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return at

    def _look_for_orphans(self):
        deadline = time.monotonic() + DEATH_SECONDS
        while _ranks() and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in _ranks():
            self._counts["orphans"] += 1
            print(f"process {pid} is left", flush=True)
            os.kill(pid, signal.SIGKILL)


def result(run):
    """Return what may not differ: the log but times, and the bits of the model."""
    with np.load(run / "model.npz") as model:
        arrays = {key: (v.dtype, v.shape, v.tobytes()) for key, v in model.items()}
    log = json.loads((run / "log").read_text())
    return [{k: v for k, v in e.items() if k not in TIMES} for e in log], arrays


def _mpiexec():
    beside = Path(sys.executable).parent / "mpiexec"
    return beside if beside.exists() else "mpiexec"


def _partials(run):
    return list(run.glob("snapshots/*.partial"))


def _wait(launcher, done, seconds):
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline and launcher.poll() is None:
        time.sleep(0.001)


def _ranks():
    """Return the PIDs of the ranks that live."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes().split(b"\0")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended, or is another user's
            continue
        is_rank = any(word.startswith(_OF_RANKS) for word in words)
        if is_rank and MARK.encode() in words and state != "Z":
            found.add(int(process.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
