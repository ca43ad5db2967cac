"""Exceptions of the package."""


class UsageError(Exception):
    """A request of the user can't be fulfilled; the message is a line that says why."""

    def __init__(self, message: object):
        super().__init__(in_one_line(message))


class CollectiveError(RuntimeError):
    """The ranks did not all reach the same layer; the message tells where each is."""


class Ended(Exception):
    """A run ends on all ranks; the message is one line with a reason.

    Attributes:
        status (int): Exit status: 0 if it can be resumed, 1 if it failed.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message, status)  # all arguments, so that it can be pickled
        self.status = status

    def __str__(self):
        return str(self.args[0])


class Diverged(Ended):
    """A run ends because its loss is not finite."""


def in_one_line(text: object) -> str:
    """Return a text with line breaks, and bytes that are not text, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
