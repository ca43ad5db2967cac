"""What is told how far a rank has come."""


class Progress:
    """Takes reports of a rank's progress; this base class ignores them."""

    def reach(self, place: str) -> None:
        """Report that this rank has come to a place in the program.

        Args:
            place (str): What is done there, such as ``"the evaluation"``.
        """

    def keep_alive(self) -> None:
        """Report that this rank makes progress at the place that it is at."""
