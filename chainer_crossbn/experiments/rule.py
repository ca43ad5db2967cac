"""Initial weights and learning rate: one rule for all networks and batch sizes."""

from dataclasses import dataclass

REFERENCE_GLOBAL_BATCH = 512
# How the learning rate goes with the global batch size: name -> exponent.
POWERS = {"constant": 0.0, "sqrt": 0.5, "linear": 1.0}


@dataclass(frozen=True)
class Rule:
    """Gives each run its initial weights and its learning rate.

    Attributes:
        init (str): Value of ``--init``.
        base_rate (float): Learning rate at a global batch of 512 images.
        scaling (str): How it goes with the global batch: a name of :data:`POWERS`.
    """

    init: str
    base_rate: float
    scaling: str

    def rate(self, global_batch):
        """Return the learning rate at a global batch size, to 4 digits."""
        share = (global_batch / REFERENCE_GLOBAL_BATCH) ** POWERS[self.scaling]
        return float(f"{self.base_rate * share:.4g}")

    def __str__(self):
        start = f"{self.init} initialization, learning rate {self.base_rate:g}"
        if self.scaling == "constant":
            return f"{start} at every batch size"
        how = {"sqrt": "the square root of", "linear": "in proportion to"}
        return (
            f"{start} at a global batch of {REFERENCE_GLOBAL_BATCH}, going with "
            f"{how[self.scaling]} it"
        )


# That of train_cifar.py, until a search has chosen.
STANDARD = Rule("he", 0.01, "sqrt")
