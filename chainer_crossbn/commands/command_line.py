"""What the commands share: parsers, messages, and the exit status."""

import argparse
import difflib
import io
import os
import sys
from typing import Any, Callable, NoReturn, Optional, Union

from chainer_crossbn import __version__
from chainer_crossbn.errors import UsageError, in_one_line


class Parser(argparse.ArgumentParser):
    """Raises :class:`UsageError` where argparse would print its usage and exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.add_argument(
            "-V",
            "--version",
            action="version",
            version=f"chainer_crossbn {__version__}",
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for flag in self._option_string_actions if flag[:2] == "--"]
            name = unknown[0].partition("=")[0]
            close = difflib.get_close_matches(name, flags, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return parsed


def print_anything() -> None:
    """Print what standard output can't encode, such as in a file's name, as escapes.

    Standard error does so by default.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def complain(program: str, message: object) -> None:
    """Print a message in one line on standard error.

    Args:
        program (str): The program, which precedes the message.
        message: What is converted by ``str``.
    """
    print(f"{program}: {in_one_line(message)}", file=sys.stderr, flush=True)


def conclude(
    program: str,
    run: Callable[[], Optional[int]],
    refusals: Union[type[Exception], tuple[type[Exception], ...]] = UsageError,
) -> int:
    """Run a command of one process, and return its exit status.

    Args:
        program (str): The program, which precedes messages.
        run (callable): Takes nothing; returns the exit status, or ``None`` for 0.
        refusals (type or tuple of type): Exceptions whose message says in one line what
            can't be done.

    Returns:
        int: That of ``run``; 2 after a refusal, whose message goes to standard error; 0
        if the reader of standard output has closed it.
    """
    print_anything()
    try:
        return run() or 0
    except refusals as error:
        complain(program, f"error: {error}")
        return 2
    except BrokenPipeError:
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def add_paths(parser: argparse.ArgumentParser, default_out: str) -> None:
    """Add the arguments of a command that reads runs and writes files.

    Args:
        parser (argparse.ArgumentParser): Gets ``paths`` and ``--out``.
        default_out (str): Where it writes by default, for the help.
    """
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run directory, or a directory above some",
    )
    parser.add_argument(
        "--out", metavar="DIR", help=f"where to write (default: {default_out})"
    )


def add(group: argparse._ActionsContainer, *names: str, **options: Any) -> None:
    """Add an argument whose help gives its default, if it has one."""
    if options.get("default") is not None:
        options["help"] += " (default: %(default)s)"
    group.add_argument(*names, **options)
