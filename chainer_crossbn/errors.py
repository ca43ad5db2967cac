"""What is raised where something can't be done or goes wrong."""


class UsageError(Exception):
    """What the user asked for can't be done; the message is one line that says why."""

    def __init__(self, message):
        super().__init__(in_one_line(message))


class CollectiveError(RuntimeError):
    """The ranks did not all reach the same layer; the message says where each is."""


class Ended(Exception):
    """A run ends, on all ranks alike; the message is one line that says why.

    Attributes:
        status (int): Exit status: 0 where it can go on later, 1 where it failed.
    """

    def __init__(self, message, status):
        super().__init__(message, status)  # all arguments, so that it can be pickled
        self.status = status

    def __str__(self):
        return str(self.args[0])


class Diverged(Ended):
    """A run ends because its loss is not finite."""


def in_one_line(text):
    """Return a text with line breaks, and bytes that are no text, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
