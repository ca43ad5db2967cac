"""What rank 0 shows while it trains."""

import os
import sys

from chainer.training.extensions import PrintReport, ProgressBar

from chainer_crossbn import procfs

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
    terminal = _on_terminal()
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


def _on_terminal():
    """Tell whether a person sees what is printed.

    Where there is a launcher its own output counts: it gives the ranks pipes (MPICH) or
    pseudo-terminals (Open MPI), and passes on what they print.
    """
    launcher = _launcher()
    if launcher is None:
        return sys.stdout.isatty()
    try:
        return os.readlink(f"/proc/{launcher}/fd/1").startswith(_TERMINALS)
    except OSError:  # a process of another user
        return False


def _launcher():
    """Return the PID of the launcher, where it runs on this machine and has a name."""
    pid = os.getppid()
    while pid > 1:
        process = procfs.process(pid)
        if process is None:
            return None
        if process.name.startswith(_LAUNCHERS):
            return pid
        pid = process.parent
    return None
