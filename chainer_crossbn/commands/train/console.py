"""What rank 0 prints while it trains."""

import os
import sys
import time
from argparse import Namespace
from typing import Optional

import chainer
from chainer.training import Extension, Trainer
from chainer.training.extensions import ProgressBar

from chainer_crossbn import procfs
from chainer_crossbn.models import normalizations

# Key of the log -> heading and format. All columns fit 100 characters.
_COLUMNS = {
    "epoch": ("epoch", "d"),
    "main/loss": ("main/loss", ".5g"),
    "main/accuracy": ("main/accuracy", ".4f"),
    "train/main/accuracy": ("train/accuracy", ".4f"),
    "validation/main/loss": ("test/loss", ".5g"),
    "validation/main/accuracy": ("test/accuracy", ".4f"),
    "lr": ("lr", ".4g"),
    "elapsed_time": ("seconds", ".1f"),
}
_LEAST_WIDTH = 8
_ACCURACY = "validation/main/accuracy"
_ERASE_PROGRESS = "\033[J"
_LAUNCHERS = ("mpiexec", "mpirun", "orterun", "prterun")
_TERMINALS = ("/dev/pts/", "/dev/tty")


def describe(
    args: Namespace, details: dict, reason: str, model: chainer.Chain, path: str
) -> None:
    """Print what is about to be trained.

    Args:
        args (argparse.Namespace): Completed options.
        details (dict): Content of ``args.json`` apart from the options.
        reason (str): Why the device was chosen.
        model (chainer.Chain): The network.
        path (str): The run directory.
    """
    data, n_ranks = details["dataset"], details["n_ranks"]
    ranks = f"{n_ranks}"
    if args.virtual_ranks > 1:
        ranks += f" ({details['n_processes']} x {args.virtual_ranks} virtual ranks)"
    over_ranks = "bn_group_size" in normalizations.OPTIONS[args.bn]
    local = ", which is local normalization on one rank"
    n_parameters = sum(parameter.size for parameter in model.params())
    print(f"device: {details['device']} ({reason})")
    print(f"run: {path}")
    print(f"ranks: {ranks}")
    print(
        f"images: {data['train']:,} training and {data['test']:,} test images of "
        f"{data['name']}"
    )
    print(f"normalization: {args.bn}{local if over_ranks and n_ranks == 1 else ''}")
    print(f"network: {args.model}, width {args.width}, {n_parameters:,} parameters")
    print(
        f"global batch: {n_ranks * args.batchsize} images, learning rate: {args.lr:g}",
        flush=True,
    )


def conclude(trainer: Trainer, path: str) -> None:
    """Print the results of a run, and how to draw them.

    Args:
        trainer (chainer.training.Trainer): After its last epoch.
        path (str): The run directory.
    """
    log = trainer.get_extension("LogReport").log
    if log:
        best = max(log, key=lambda entry: entry[_ACCURACY])
        print(
            f"test accuracy: {log[-1][_ACCURACY]:.2%}, best: {best[_ACCURACY]:.2%} "
            f"(epoch {best['epoch']})"
        )
    print(f"draw it: python plot.py {path}", flush=True)


def extend(trainer: Trainer) -> None:
    """Give a trainer the table of epochs and, on a terminal, a progress bar.

    Args:
        trainer (chainer.training.Trainer): With a ``LogReport``.
    """
    terminal = on_terminal()
    trainer.extend(EpochTable(terminal), trigger=(1, "epoch"))
    if terminal:
        trainer.extend(ProgressBar(update_interval=1))


class CompilationProgress:
    """Shows on a terminal how long the compilation of kernels takes; called often."""

    def __init__(self):
        self._on_terminal = on_terminal()
        self._started = None
        self._seconds = 0

    def __call__(self):
        if not self._on_terminal:
            return
        if self._started is None:
            self._started = time.monotonic()
        seconds = int(time.monotonic() - self._started)
        if seconds > self._seconds:
            self._seconds = seconds
            text = "compiling kernels, once per installation, about half a minute"
            print(f"\r{text}: {seconds} s", end="", flush=True)

    def close(self):
        """End the line, if there is one."""
        if self._seconds:
            print(flush=True)


class EpochTable(Extension):
    """Prints a row per epoch; after a resume, it prints the earlier epochs first.

    Args:
        terminal (bool): Whether a progress bar is shown below the table.
    """

    def __init__(self, terminal: bool):
        self._terminal = terminal
        self._n_printed = 0

    def __call__(self, trainer):
        log = trainer.get_extension("LogReport").log
        if self._terminal:
            sys.stdout.write(_ERASE_PROGRESS)
        if not self._n_printed:
            print("  ".join(_cell(name) for name, _ in _COLUMNS.values()).rstrip())
        for entry in log[self._n_printed :]:
            cells = (
                _cell(name, format(entry[key], pattern) if key in entry else "")
                for key, (name, pattern) in _COLUMNS.items()
            )
            print("  ".join(cells).rstrip())
        sys.stdout.flush()
        self._n_printed = len(log)


def _cell(name: str, text: Optional[str] = None) -> str:
    return (name if text is None else text).ljust(max(len(name), _LEAST_WIDTH))


def on_terminal() -> bool:
    """Return whether the output goes to a terminal.

    Under a launcher, the launcher's own output counts: it gives the ranks pipes (MPICH)
    or pseudo-terminals (Open MPI) and forwards what they print.
    """
    launcher = _launcher()
    if launcher is None:
        return sys.stdout.isatty()
    try:
        return os.readlink(f"/proc/{launcher}/fd/1").startswith(_TERMINALS)
    except OSError:  # a process of another user
        return False


def _launcher():
    """Return the PID of the launcher if it runs on this machine, else ``None``."""
    pid = os.getppid()
    while pid > 1:
        process = procfs.process(pid)
        if process is None:
            return None
        if process.name.startswith(_LAUNCHERS):
            return pid
        pid = process.parent
    return None
