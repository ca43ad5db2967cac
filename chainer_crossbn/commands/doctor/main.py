"""The command line of ``python -m chainer_crossbn doctor``."""

import contextlib
import importlib
import io
import os
import socket
import sys
import threading
from typing import Optional

from chainer_crossbn import launcher
from chainer_crossbn.commands.command_line import (
    Parser,
    add,
    complain,
    print_anything,
)
from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs.values import number

_PROGRAM = "chainer_crossbn doctor"
# Everything that training imports, in the order in which errors are easiest to read.
_IMPORTS = (
    "mpi4py.MPI",
    "chainer",
    "chainermn",
    "chainer_crossbn.commands.train.main",
    "chainer_crossbn.commands.doctor.examination",
)


def main(argv: Optional[list[str]] = None) -> int:
    """Examine the machine with all ranks; rank 0 prints one screen.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status, on all ranks: 0 ready, 1 with warnings, 2 training can't run
        (or the arguments are wrong: one line on standard error).
    """
    print_anything()
    launch = launcher.launch_of(os.environ)
    rank = launch.rank if launch else 0
    try:
        # Only rank 0 prints the help.
        with contextlib.redirect_stdout(io.StringIO() if rank else sys.stdout):
            args = _parse(argv)
    except UsageError as error:
        return _refuse(rank, error)
    deadline = Deadline(rank, args.patience)
    try:
        deadline.restart("the start of MPI")
        message = _import_error()
        if message is not None:
            return _refuse(rank, message)
        # Imported after _import_error() has reported what can't be imported.
        from mpi4py import MPI

        from chainer_crossbn.commands.doctor import examination

        message = launcher.mismatch(os.environ, MPI.COMM_WORLD.size)
        if message is not None:
            return _refuse(rank, f"{message} (library: {examination.mpi_library()})")
        return examination.examine(args.out, deadline.restart)
    finally:
        deadline.stop()


class Deadline:
    """Ends the process if it stays at one place for too long.

    Args:
        rank (int): The rank, as the launcher gives it.
        seconds (float): Time limit of each place.
    """

    def __init__(self, rank: int, seconds: float) -> None:
        self._rank = rank
        self._seconds = seconds
        self._timer: Optional[threading.Timer] = None

    def restart(self, place: str) -> None:
        """Start the time limit of a place.

        Args:
            place (str): What comes next, such as ``"the start of MPI"``.
        """
        self.stop()
        timer = threading.Timer(self._seconds, self._end, [place])
        timer.daemon = True
        timer.start()
        self._timer = timer

    def stop(self) -> None:
        """Remove the time limit."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, place):
        complain(
            _PROGRAM,
            f"error: rank {self._rank} (PID {os.getpid()} on {socket.gethostname()}) "
            f"has been at {place} for {self._seconds:g} s; another rank is missing, or "
            "messages between nodes are blocked (firewall, wrong network interface: "
            "see docs/clusters.md)",
        )
        os._exit(2)


def _parse(argv):
    parser = Parser(
        prog=f"python -m {_PROGRAM}",
        description="Check whether this machine, or the nodes that mpiexec starts it "
        "on, are ready for training. Exit status: 0 ready, 1 with warnings, 2 training "
        "can't run.",
    )
    add(parser, "--out", default="result", metavar="DIR", help="where results will go")
    add(
        parser,
        "--patience",
        type=number(float, 0, low_included=False),
        default=60.0,
        metavar="SECONDS",
        help="end if a rank waits longer than this for the others",
    )
    return parser.parse_args(argv)


def _refuse(rank, error):
    if rank == 0:
        complain(_PROGRAM, f"error: {error}")
    return 2


def _import_error():
    """Import what training needs; return an error message, or ``None``."""
    for name in _IMPORTS:
        try:
            importlib.import_module(name)
        # mpi4py without an MPI library and Numba without a cache raise RuntimeError.
        except (ImportError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            return f"import {name} fails: {reason}; see docs/clusters.md, Install"
    return None
