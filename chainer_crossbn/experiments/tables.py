"""The tables of the report, in Markdown."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from chainer_crossbn.experiments.comparisons import spread
from chainer_crossbn.experiments.definitions import Setting
from chainer_crossbn.experiments.results import Results
from chainer_crossbn.plotting import networks
from chainer_crossbn.plotting.papers import AS_WRITTEN_SECONDS
from chainer_crossbn.runs.learning_rate import REFERENCE_GLOBAL_BATCH
from chainer_crossbn.runs.reading import TRAIN_ACCURACY
from chainer_crossbn.text_tables import markdown

_MISSING = "–"


def accuracies(results: Results, settings: Iterable[Setting]) -> str:
    """Return the final accuracies, a row for each setting with finished runs."""
    several = len({run.dataset["train"] for run in results.runs(settings)}) > 1
    head = ("network", "batch", *(("images",) if several else ()), "learning rate")
    head += ("seeds", "test [%]", "training [%]")
    rows = []
    for setting in settings:
        runs = results.runs([setting])
        if not runs:
            continue
        images = (f"{runs[0].dataset['train']:,}",) if several else ()
        rows.append(
            (
                networks.name(runs[0].network),
                setting.batch,
                *images,
                f"{runs[0].arguments['lr']:g}",
                len(runs),
                spread([100 * run.final_accuracy for run in runs], ".1f"),
                spread([100 * run.columns[TRAIN_ACCURACY][-1] for run in runs], ".1f"),
            )
        )
    return markdown(head, rows)


def times(results: Results, settings: Iterable[Setting]) -> str:
    """Return Table 2: times of whole runs beside the paper's."""
    head = ("network", "seeds", "total [s]", "to normalBN", "to noBN", "training [s]")
    head += ("to normalBN", "paper [s]", "to normalBN", "to noBN")
    normal = results.runs([Setting("normal", 64, timed=True)])
    none = results.runs([Setting("none", 64, timed=True)])
    rows = []
    for setting in settings:
        runs = results.runs([setting])
        if not runs:
            continue
        total, training = _median(runs, "total_time"), _median(runs, "train_time")
        paper = AS_WRITTEN_SECONDS.get(setting.bn)
        rows.append(
            (
                networks.name(runs[0].network),
                len(runs),
                spread([run.total_time for run in runs], ".1f"),
                _ratio(total, _median(normal, "total_time")),
                _ratio(total, _median(none, "total_time")),
                spread([run.train_time for run in runs], ".1f"),
                _ratio(training, _median(normal, "train_time")),
                paper or _MISSING,
                _ratio(paper, AS_WRITTEN_SECONDS["normal"]),
                _ratio(paper, AS_WRITTEN_SECONDS["none"]),
            )
        )
    return markdown(head, rows)


def learning_rates(results: Results, settings: Iterable[Setting]) -> str:
    """Return test accuracy in percent by network and learning rate.

    Args:
        results (Results): The finished runs.
        settings (iterable of Setting): All of one batch size.
    """
    multiples = dict.fromkeys(setting.rate for setting in settings)
    (batch,) = {setting.batch for setting in settings}
    rows = []
    for bn in dict.fromkeys(setting.bn for setting in settings):
        cells = []
        for rate in multiples:
            runs = results.runs([Setting(bn, batch, rate=rate)])
            values = [100 * run.final_accuracy for run in runs]
            cells.append(spread(values, ".1f") if values else _MISSING)
        rows.append((networks.name(bn), *cells))
    standard = results.rule.rate(batch * results.scale.ranks)
    head = ("learning rate", *(f"{rate * standard:g}" for rate in multiples))
    return markdown(head, rows)


def search_grid(choice: dict[str, Any]) -> str:
    """Return all the rules that a search has tried, the best first.

    Args:
        choice (dict): The content of ``search.json``.
    """
    rules = sorted(choice["rules"], key=lambda entry: -entry["score"])
    members = list(rules[0]["test_accuracy"])
    head = ("init", f"rate at {REFERENCE_GLOBAL_BATCH}", "scaling")
    head += ("score", *map(_member, members))
    rows = [
        (
            entry["init"],
            f"{entry['base_rate']:g}",
            entry["scaling"],
            f"{entry['score']:.3f}",
            *(f"{100 * entry['test_accuracy'][name]:.1f}" for name in members),
        )
        for entry in rules
    ]
    return markdown(head, rows)


def machines(
    paper: Iterable[tuple[str, str]],
    recorded: list[dict[str, Any]],
    record: dict[str, Any],
) -> str:
    """Return the paper's machine (its Table 1) beside those of the runs.

    Args:
        paper (iterable): Pairs of a row's name and what the paper has there.
        recorded (list of dict): As :func:`chainer_crossbn.experiments.machine.read`
            returns them.
        record (dict): The content of ``args.json`` of a run.
    """
    columns = [_machine_column(each, record) for each in recorded]
    names = ["this machine"]
    if len(recorded) > 1:
        names = [f"machine {n}" for n in range(1, len(recorded) + 1)]
    return markdown(
        ("", "the paper: TSUBAME-KFC", *names),
        [(row, text, *(c.get(row, _MISSING) for c in columns)) for row, text in paper],
    )


def _machine_column(machine, record):
    packages = machine["packages"]
    parts = [machine["cpu"] or _MISSING, f"{machine['cores']} cores"]
    parts += [", ".join(machine["instructions"])] if machine["instructions"] else []
    memory, nodes = machine["memory_gib"], record.get("n_nodes")
    return {
        "CPU": ", ".join(parts),
        "memory": f"{memory} GiB" if memory else _MISSING,
        "accelerators": "none used" if record["device"] == "CPU" else "GPUs",
        "network": {None: _MISSING, 1: "none: one node"}.get(nodes, f"{nodes} nodes"),
        "system": machine["system"],
        "MPI": " ".join(record["versions"]["mpi"].split()),
        "framework": f"Chainer {packages['chainer']}, NumPy {packages['numpy']}, Numba "
        f"{packages['numba']}, Python {machine['python']}",
    }


def _member(name):
    bn, batch = name.split("-b")
    return f"{networks.name(bn)}@{batch} [%]"


def _median(runs, quantity):
    return np.median([getattr(run, quantity) for run in runs]) if runs else None


def _ratio(value, reference):
    if value is None or reference is None:
        return _MISSING
    return f"{value / reference:.3f}"
