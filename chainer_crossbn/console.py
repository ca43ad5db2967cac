"""What rank 0 shows while it trains."""

import os
import sys

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


def extend(trainer):
    """Give a trainer the table of epochs and, on a terminal, a progress bar.

    Args:
        trainer (chainer.training.Trainer): With a ``LogReport``.
    """
    terminal = sys.stdout.isatty() or _launched_on_terminal()
    out = sys.stdout if terminal else _Plain(sys.stdout)
    trainer.extend(PrintReport(_TABLE, out=out), trigger=(1, "epoch"))
    if terminal:
        trainer.extend(ProgressBar(update_interval=1))


class _Plain:
    """Leaves out the control codes that :class:`PrintReport` writes."""

    def __init__(self, stream):
        self._stream = stream
        self.flush = stream.flush

    def write(self, text):
        self._stream.write(text.replace(_ERASE, ""))


def _launched_on_terminal():
    """Tell whether the launcher of the ranks, which pass their output on, has one."""
    pid = os.getppid()
    try:
        while pid > 1:
            with open(f"/proc/{pid}/stat") as file:
                # "PID (NAME) STATE PARENT ...", where NAME may hold anything.
                before, _, after = file.read().rpartition(")")
            if before.partition("(")[2].startswith(_LAUNCHERS):
                return os.readlink(f"/proc/{pid}/fd/1").startswith(_TERMINALS)
            pid = int(after.split()[1])
    except OSError:  # no /proc, or a process of another user
        pass
    return False
