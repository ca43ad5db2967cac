"""One iteration of all ranks as a list of events."""

from chainer_crossbn.profiling.breakdown import Iteration

PHASES = ("data", "forward", "backward", "update")


def events_of_rank(iteration: Iteration) -> list[tuple[str, str, float, float]]:
    """Return the events of an iteration on one rank.

    Args:
        iteration (Iteration): In the clock that the ranks share.

    Returns:
        list of tuple: (kind, layer, start, duration), in seconds of that clock. Kinds
        are those of ``PHASES``, which contain all others; ``function`` and ``gradient``
        (a function's forward and backward pass), which contain ``BN wait`` and ``BN
        transfer``; ``all-reduce wait`` and ``all-reduce transfer``.
    """
    step = iteration.step
    layout = step.layout
    events = [
        (kind, "", start, end - start)
        for kind, start, end in zip(PHASES, step.phases, step.phases[1:])
    ]
    events += [
        ("gradient" if backward else "function", layer, start, end - start)
        for layer, backward, (start, end) in zip(
            layout.layers, layout.backward, step.functions
        )
    ]
    for part, (start, _), wait, transfer in zip(
        step.parts, step.collectives, iteration.bn_wait, iteration.bn_transfer
    ):
        events.append(("BN wait", layout.layers[part], start, wait))
        events.append(("BN transfer", layout.layers[part], start + wait, transfer))
    start, wait = step.all_reduce[0], iteration.all_reduce_wait
    events.append(("all-reduce wait", "", start, wait))
    events.append(
        ("all-reduce transfer", "", start + wait, iteration.all_reduce_transfer)
    )
    return events


def table(events: list[list[tuple[str, str, float, float]]]) -> dict[str, list]:
    """Merge the events of the ranks into one table.

    Args:
        events (list of list of tuple): The events of each rank, as
            :func:`events_of_rank` returns them.

    Returns:
        dict: ``layers``, a list of paths, and ``events``, a list of [rank, kind, number
        of the layer, start, duration], in whole microseconds from the first start on.
    """
    started = min(start for of_rank in events for _, _, start, _ in of_rank)
    layers = sorted({layer for of_rank in events for _, layer, _, _ in of_rank})
    numbers = {layer: number for number, layer in enumerate(layers)}
    rows = [
        [rank, kind, numbers[layer], round((start - started) * 1e6), round(span * 1e6)]
        for rank, of_rank in enumerate(events)
        for kind, layer, start, span in of_rank
    ]
    return {"layers": layers, "events": rows}
