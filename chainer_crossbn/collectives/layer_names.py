"""Give each layer of a communicator a name that is equal on all ranks.

The order check compares layers by name, so no two layers may share one. A rank can't
see how the others call their layers, and may construct models of its own, so layers are
numbered when they are first used for a collective, not when they are constructed. The
number alone would not show that two ranks use the same layers in a different order.
The name therefore also tells where the layer stands among those used before, in the
order of construction: if these positions agree at each first use, so do the orders.
"""

import bisect
import itertools
from typing import Optional

Lineage = tuple[int, ...]

_serials = itertools.count()


def new_lineage(parent: Lineage = ()) -> Lineage:
    """Return the lineage of a layer that was just constructed, or copied.

    Lineages of layers that are constructed one after the other ascend. Those of copies
    ascend as the lineages of their originals, in whichever order these are copied.

    Args:
        parent (tuple of int): The lineage of the original of a copy.
    """
    return (*parent, next(_serials))


class LayerNames:
    """The names of the layers of one communicator."""

    def __init__(self):
        self._names: dict[tuple[str, Lineage], str] = {}
        self._used: dict[str, list[tuple[Lineage, int]]] = {}

    def name(self, label: str, lineage: Lineage) -> str:
        """Return the name of a layer, which it gets when this is first called.

        Args:
            label (str): What the name begins with, such as the kind of layer.
            lineage (tuple of int): Made by :func:`new_lineage` for this layer.

        Returns:
            str: ``label`` for the first layer that has it, then
            ``"LABEL #2 (after #1)"`` and so on.
        """
        key = label, lineage
        if key not in self._names:
            self._names[key] = self._new_name(label, lineage)
        return self._names[key]

    def _new_name(self, label, lineage):
        used = self._used.setdefault(label, [])
        number = len(used) + 1
        position = bisect.bisect(used, (lineage,))
        previous: Optional[int] = used[position - 1][1] if position else None
        used.insert(position, (lineage, number))
        if number == 1:
            return label
        after = f"after #{previous}" if previous else "before all others"
        return f"{label} #{number} ({after})"
