"""What the commands have in common: number arguments, and what they say."""

import argparse
import difflib
import io
import os
import sys

from chainer_crossbn import __version__
from chainer_crossbn.errors import UsageError, in_one_line


class Parser(argparse.ArgumentParser):
    """Raises :class:`UsageError` where argparse would print its usage and exit."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)
        self.add_argument(
            "-V",
            "--version",
            action="version",
            version=f"chainer_crossbn {__version__}",
        )

    def error(self, message):
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


def print_anything():
    """Have what standard output can't encode, as in a file's name, printed as escapes.

    Standard error does so from the start.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def complain(program, message):
    """Say something in one line on standard error.

    Args:
        program (str): Who says it.
        message: What there is to say.
    """
    print(f"{program}: {in_one_line(message)}", file=sys.stderr, flush=True)


def conclude(program, run, refusals=UsageError):
    """Run a command of one process to its end.

    Args:
        program (str): Who says what can't be done.
        run (callable): Takes nothing; returns the exit status, or ``None`` for 0.
        refusals (type or tuple of type): Exceptions whose message is one line that
            says what can't be done.

    Returns:
        int: Exit status: that of ``run``; 2 after a refusal, said on standard error; 0
        where the reader of standard output has seen enough and is gone.
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


def add(group, *names, **options):
    """Add an argument whose help tells its default, where that is a value."""
    if options.get("default") is not None:
        options["help"] += " (default: %(default)s)"
    group.add_argument(*names, **options)
