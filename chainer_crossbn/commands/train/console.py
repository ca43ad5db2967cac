"""What rank 0 prints while it trains."""

import os
import sys

from chainer.training import Trainer
from chainer.training.extensions import PrintReport, ProgressBar

_TABLE = (
    "epoch",
    "main/loss",
    "main/accuracy",
    "train/main/accuracy",
    "validation/main/accuracy",
    "elapsed_time",
)
_ERASE = "\033[J"
_LAUNCHERS = ("mpiexec", "mpirun", "orterun", "prterun")
_TERMINALS = ("/dev/pts/", "/dev/tty")


def extend(trainer: Trainer) -> None:
    """Give a trainer the table of epochs and, on a terminal, a progress bar.

    Args:
        trainer (chainer.training.Trainer): With a ``LogReport``.
    """
    terminal = _on_terminal()
    out = sys.stdout if terminal else _Plain(sys.stdout)
    trainer.extend(PrintReport(_TABLE, out=out), trigger=(1, "epoch"))
    if terminal:
        trainer.extend(ProgressBar(update_interval=1))


class _Plain:
    """A stream without the control codes that :class:`PrintReport` writes."""

    def __init__(self, stream):
        self._stream = stream
        self.flush = stream.flush

    def write(self, text):
        self._stream.write(text.replace(_ERASE, ""))


def _on_terminal():
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
        try:
            with open(f"/proc/{pid}/stat") as file:
                # "PID (NAME) STATE PARENT ...", where NAME may hold anything.
                before, _, after = file.read().rpartition(")")
        except OSError:  # no /proc
            return None
        if before.partition("(")[2].startswith(_LAUNCHERS):
            return pid
        pid = int(after.split()[1])
    return None
