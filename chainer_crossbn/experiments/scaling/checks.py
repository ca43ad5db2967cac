"""How well the model predicts runs that it was not fitted to."""

from typing import NamedTuple

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.scaling import model as modelling
from chainer_crossbn.plotting import style


class Check(NamedTuple):
    """A run and its prediction, in seconds.

    Attributes:
        seen (Observation): The run.
        left_out (str): What the model was fitted without.
        predicted (float): Time of its iteration.
    """

    seen: tuple
    left_out: str
    predicted: float

    @property
    def error(self):
        """The prediction's relative error."""
        return self.predicted / self.seen.time - 1


def check(observations, scale):
    """Predict every run from a model that was fitted to others.

    Runs of two ranks are predicted from the other batch sizes, where there are two.
    Those of another number of ranks are no part of the fit, save those of most ranks if
    they share cores: f and g are fitted to them.

    Args:
        observations (list of Observation): Measured.
        scale (Scale): What they share.

    Returns:
        list of Check: In the order of ranks, networks and batch sizes.
    """
    whole = modelling.fit(observations, scale)
    sharing = whole.oversubscription
    found = []
    for seen in sorted(observations, key=lambda seen: (seen.ranks, *seen)):
        if seen.ranks == 2:
            others = [o for o in observations if (o.ranks, o.batch) != (2, seen.batch)]
            try:
                fitted = modelling.fit(others, scale)
            except UsageError:  # too few batch sizes are left
                continue
            left_out = f"batch size {seen.batch}"
        elif sharing and seen.ranks == sharing.ranks:
            continue
        else:
            fitted, left_out = whole, style.setting("ranks", seen.ranks)
        if modelling.comparable(fitted, seen):
            predicted = fitted.predict(seen.network, seen.batch, seen.ranks)
            found.append(Check(seen, left_out, predicted))
    return found
