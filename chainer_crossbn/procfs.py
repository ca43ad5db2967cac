"""Facts about processes from Linux's ``/proc``."""

from typing import NamedTuple, Optional


class Process(NamedTuple):
    """A running process.

    Attributes:
        name (str): Name of its program, at most 15 characters.
        state (str): One letter, such as ``"R"`` (running) or ``"T"`` (stopped).
        parent (int): PID of its parent.
    """

    name: str
    state: str
    parent: int


def process(pid: int) -> Optional[Process]:
    """Return a process, or ``None`` if it is gone or there is no ``/proc``."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            # "PID (NAME) STATE PARENT ...", where NAME may contain any character.
            before, _, after = file.read().rpartition(")")
    except OSError:
        return None
    state, parent = after.split()[:2]
    return Process(before.partition("(")[2], state, int(parent))
