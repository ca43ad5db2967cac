"""Run a command: ``python -m chainer_crossbn COMMAND ...``."""

import importlib
import sys

# Name -> module of its ``main``.
_COMMANDS = {
    "train": "train.main",
    "plot": "plot",
    "doctor": "doctor.main",
    "experiments": "experiments",
    "scaling": "scaling",
}


def main(argv):
    """Run a command.

    Args:
        argv (list of str): Name of the command, and its arguments.

    Returns:
        int: Exit status.
    """
    name, *arguments = argv or ["--help"]
    if name in _COMMANDS:
        module = f"chainer_crossbn.commands.{_COMMANDS[name]}"
        return importlib.import_module(module).main(arguments)
    names = ", ".join(_COMMANDS)
    if name in ("-h", "--help"):
        print(f"usage: python -m chainer_crossbn COMMAND ...\n\ncommands: {names}")
        return 0
    print(
        f"chainer_crossbn: error: no command {name!r}; one of {names}", file=sys.stderr
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
