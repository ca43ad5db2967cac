"""Problems that the doctor reports."""

from typing import NamedTuple


class Problem(NamedTuple):
    """A problem.

    Attributes:
        status (int): Exit status: 1 if training is slow, or may fail later; 2 if it
            can't run.
        message (str): One line: the problem, and what to do about it.
    """

    status: int
    message: str

    def __str__(self) -> str:
        return f"{'warning' if self.status == 1 else 'error'}: {self.message}"


def warning(message: str) -> Problem:
    """Return a problem that makes training slow, or may make it fail later."""
    return Problem(1, message)


def error(message: str) -> Problem:
    """Return a problem with which training can't run."""
    return Problem(2, message)


def exit_status(problems: list[Problem]) -> int:
    """Return 0 without problems, else the highest status."""
    return max((problem.status for problem in problems), default=0)
