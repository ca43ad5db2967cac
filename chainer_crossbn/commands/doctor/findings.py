"""What is found to be wrong, and what to do about it."""

from typing import NamedTuple

NOTE, HURTS, FATAL = "note", "warning", "error"
_STATUS = {NOTE: 0, HURTS: 1, FATAL: 2}


class Finding(NamedTuple):
    """One thing to know.

    Attributes:
        level (str): :data:`NOTE`, :data:`HURTS` (training will be slow, or may fail
            later) or :data:`FATAL` (it can't run).
        words (str): One line: what is so, and what to do.
    """

    level: str
    words: str


def status(findings):
    """Return the exit status: 0 all well, 1 something will hurt, 2 can't run."""
    return max((_STATUS[finding.level] for finding in findings), default=0)


def verdict(findings):
    """Return the exit status in words."""
    return (
        "all well",
        "it runs, but something will hurt: see the warnings",
        "it can't run like this: see the errors",
    )[status(findings)]
