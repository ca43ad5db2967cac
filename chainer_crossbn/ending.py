"""How a run ends before its last epoch."""


class Ended(Exception):
    """A run ends, on all ranks alike; the message is one line that says why.

    Attributes:
        status (int): Exit status: 0 where it can go on later, 1 where it failed.
    """

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status
