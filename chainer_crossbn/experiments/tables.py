"""The tables of the report, in Markdown."""

import numpy as np

from chainer_crossbn.experiments import rule
from chainer_crossbn.experiments.definitions import Setting
from chainer_crossbn.plotting import networks
from chainer_crossbn.plotting.papers import AS_WRITTEN_SECONDS
from chainer_crossbn.runs.reading import TRAIN_ACCURACY
from chainer_crossbn.text_tables import markdown

_MISSING = "–"


def runs(results, settings):
    """What became of some settings: a line for each that has finished runs.

    Args:
        results (Results): The finished runs.
        settings (iterable of Setting): In the order of the lines.

    Returns:
        str: The table.
    """
    sizes = {run.dataset["train"] for run in results.runs(settings)}
    head = ("network", "batch", *(("images",) if len(sizes) > 1 else ()))
    head += ("learning rate", "seeds", "test [%]", "training [%]")
    lines = []
    for setting in settings:
        found = results.runs([setting])
        if not found:
            continue
        lines.append(
            (
                networks.name(found[0].network),
                setting.batch,
                *((f"{found[0].dataset['train']:,}",) if len(sizes) > 1 else ()),
                f"{found[0].arguments['lr']:g}",
                len(found),
                _spread([100 * run.final_accuracy for run in found], ".1f"),
                _spread([_training(run) for run in found], ".1f"),
            )
        )
    return markdown(head, lines)


def times(results, settings):
    """Table 2: times of whole runs beside the paper's.

    Args:
        results (Results): The finished runs.
        settings (iterable of Setting): In the order of the lines.

    Returns:
        str: The table.
    """
    head = ("network", "seeds", "total [s]", "to normalBN", "to noBN", "training [s]")
    head += ("to normalBN", "paper [s]", "to normalBN", "to noBN")
    normal = results.runs([Setting("normal", 64, timed=True)])
    none = results.runs([Setting("none", 64, timed=True)])
    lines = []
    for setting in settings:
        found = results.runs([setting])
        if not found:
            continue
        total, training = _median(found, "total_time"), _median(found, "train_time")
        theirs = AS_WRITTEN_SECONDS.get(setting.bn)
        lines.append(
            (
                networks.name(found[0].network),
                len(found),
                _spread([run.total_time for run in found], ".1f"),
                _quotient(total, _median(normal, "total_time")),
                _quotient(total, _median(none, "total_time")),
                _spread([run.train_time for run in found], ".1f"),
                _quotient(training, _median(normal, "train_time")),
                theirs or _MISSING,
                _quotient(theirs, AS_WRITTEN_SECONDS["normal"]),
                _quotient(theirs, AS_WRITTEN_SECONDS["none"]),
            )
        )
    return markdown(head, lines)


def rates(results, settings):
    """Test accuracy in percent by network and multiple of the learning rate.

    Args:
        results (Results): The finished runs.
        settings (iterable of Setting): All of one batch size.

    Returns:
        str: The table.
    """
    multiples = dict.fromkeys(setting.rate for setting in settings)
    (batch,) = {setting.batch for setting in settings}
    lines = []
    for bn in dict.fromkeys(setting.bn for setting in settings):
        cells = []
        for rate in multiples:
            found = results.runs([Setting(bn, batch, rate=rate)])
            values = [100 * run.final_accuracy for run in found]
            cells.append(_spread(values, ".1f") if values else _MISSING)
        lines.append((networks.name(bn), *cells))
    standard = results.rule.rate(batch * results.scale.ranks)
    head = ("learning rate", *(f"{rate * standard:g}" for rate in multiples))
    return markdown(head, lines)


def grid(outcome):
    """All the rules that a search has tried, the best first.

    Args:
        outcome (dict): As :func:`chainer_crossbn.experiments.search.read` returns it.

    Returns:
        str: The table.
    """
    rules = sorted(outcome["rules"], key=lambda entry: -entry["score"])
    members = list(rules[0]["test_accuracy"])
    head = ("init", f"rate at {rule.REFERENCE_GLOBAL_BATCH}", "with the global batch")
    head += ("score", *(_member(name) for name in members))
    return markdown(
        head,
        [
            (
                entry["init"],
                f"{entry['base_rate']:g}",
                entry["scaling"],
                f"{entry['score']:.3f}",
                *(f"{100 * entry['test_accuracy'][name]:.1f}" for name in members),
            )
            for entry in rules
        ],
    )


def machines(paper, found, record):
    """The paper's machine (its Table 1) beside those that the runs were made on.

    Args:
        paper (iterable): Pairs of a row's name and what the paper has there.
        found (list of dict): As :func:`chainer_crossbn.experiments.machine.read`
            returns them.
        record (dict): What ``args.json`` has of a run.

    Returns:
        str: The table.
    """
    columns = [_machine_rows(each, record) for each in found]
    names = ["this machine"]
    if len(found) > 1:
        names = [f"machine {n}" for n in range(1, len(found) + 1)]
    return markdown(
        ("", "the paper: TSUBAME-KFC", *names),
        [(row, text, *(c.get(row, _MISSING) for c in columns)) for row, text in paper],
    )


def _training(run):
    return 100 * run.columns[TRAIN_ACCURACY][-1]


def _machine_rows(found, record):
    packages = found["packages"]
    parts = [found["cpu"] or _MISSING, f"{found['cores']} cores"]
    parts += [", ".join(found["instructions"])] if found["instructions"] else []
    memory, nodes = found["memory_gib"], record.get("n_nodes")
    return {
        "CPU": ", ".join(parts),
        "memory": f"{memory} GiB" if memory else _MISSING,
        "accelerators": "none used" if record["device"] == "CPU" else "GPUs",
        "network": {None: _MISSING, 1: "none: one node"}.get(nodes, f"{nodes} nodes"),
        "system": found["system"],
        "MPI": " ".join(record["versions"]["mpi"].split()),
        "framework": f"Chainer {packages['chainer']}, NumPy {packages['numpy']}, Numba "
        f"{packages['numba']}, Python {found['python']}",
    }


def _member(name):
    bn, batch = name.split("-b")
    return f"{networks.name(bn)}@{batch} [%]"


def _median(found, quantity):
    return np.median([getattr(run, quantity) for run in found]) if found else None


def _spread(values, form):
    """Median and, of several, range."""
    text = format(np.median(values), form)
    if len(values) == 1:
        return text
    return f"{text} ({min(values):{form}}–{max(values):{form}})"


def _quotient(value, reference):
    if value is None or reference is None:
        return _MISSING
    return f"{value / reference:.3f}"
