"""Trains networks on this number of processes, with virtual ranks to make 8 of them.

Usage: virtual_ranks.py DIRECTORY; a run for each case goes there. Runs of other numbers
of processes, in directories beside it, are resumed.
"""

import shutil
import sys
from pathlib import Path

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
from mpi4py import MPI

from chainer_crossbn.commands.train.main import main as train_main

WORLD = MPI.COMM_WORLD
N_RANKS = 8
# 10 iterations; the last of an epoch has 13 images, of which ranks have 2 or 1.
FLAGS = (
    *("--dataset", "synthetic", "--train-size", 109, "--test-size", 24, "--epoch", 2),
    *("--batchsize", 3, "--width", 2, "--fc-units", 4, "--lr", 0.01, "--lr-step", 1),
    *("--threads", 1, "--cpu"),
)
_FOURS = ("--bn-group-size", 4)
CASES = {
    "none": ("--bn", "none"),
    "normal": ("--bn", "normal"),
    "multigpu": ("--bn", "multigpu"),
    "paper": ("--bn", "paper"),
    "paper-local": ("--bn", "paper", "--paper-backward", "local", *_FOURS),
    "pairs": ("--bn", "multigpu", "--bn-group-size", 2, "--bn-layers", "front:6"),
    "augment": ("--bn", "multigpu", "--augment"),
    "dropout": ("--bn", "normal", "--dropout", 0.5, "--snapshot-interval", 0.6),
}


def train(*flags):
    status = train_main([str(flag) for flag in flags])
    if status:
        sys.exit(status)
    WORLD.Barrier()


def resume(whole, part, virtual_ranks):
    """Continue a copy of a finished run from its last snapshot but one."""
    if WORLD.rank == 0:
        shutil.copytree(whole, part)
        for name in ("model.npz", "statistics.json"):
            (part / name).unlink()
        shutil.rmtree(max(part.glob("snapshots/*")))
    WORLD.Barrier()
    train("--resume", part, "--virtual-ranks", virtual_ranks)


def main(out):
    virtual_ranks = N_RANKS // WORLD.size
    for name, flags in CASES.items():
        # Without the flag where it has no effect, as the ranks are processes.
        virtual = ("--virtual-ranks", virtual_ranks) if virtual_ranks > 1 else ()
        train(*FLAGS, *flags, *virtual, "--out", out, "--name", name)
    resume(out / "dropout", out / "resumed", virtual_ranks)
    for others in out.parent.glob("*/dropout"):
        if others.parent != out:
            name = f"resumed-from-{others.parent.name}"
            resume(others, out / name, virtual_ranks)
    if virtual_ranks > 1:
        resume(out / "dropout", out / "with-half-the-ranks", virtual_ranks // 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
