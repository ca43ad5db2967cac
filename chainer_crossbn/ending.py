"""How a run ends before its last epoch."""


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
