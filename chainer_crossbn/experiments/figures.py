"""The figures of the report, except those of the map of learning rates."""

from collections.abc import Iterable
from typing import Callable

import numpy as np
from matplotlib.figure import Figure

from chainer_crossbn.experiments import profiled
from chainer_crossbn.experiments.definitions import (
    NETWORKS,
    Experiment,
    Setting,
    experiments,
)
from chainer_crossbn.experiments.results import Evaluation, Results, deviations
from chainer_crossbn.plotting import bars, curves, networks, style, trends
from chainer_crossbn.plotting.groups import group_runs
from chainer_crossbn.plotting.papers import AS_WRITTEN_SECONDS
from chainer_crossbn.runs.reading import TRAIN_ACCURACY, Run

_BATCH = "Batch size per rank"
# Settings to compare with: the three networks at the batch sizes of an experiment.
_AT_4, _AT_64, _AT_2 = (tuple(Setting(bn, b) for bn in NETWORKS) for b in (4, 64, 2))


def draw(evaluation: Evaluation) -> dict[str, Figure]:
    """Draw all figures that there are runs for.

    Returns:
        dict: Name of a figure, as :meth:`.Evaluation.figure_name` gives it for an
        experiment -> figure.
    """
    drawn = {}
    for rule, results in evaluation.results.items():
        by_name = evaluation.experiments_under(rule)
        figures = {}
        for experiment in by_name.values():
            figures.update(_experiment(results, experiment, by_name))
        if "sweep" in figures:
            note = evaluation.rule_note(rule, by_name["sweep"])
            figures.update(_deviations(results, note))
        for name, figure in figures.items():
            drawn[evaluation.figure_name(name, rule)] = figure
    results = evaluation.headline
    return {**drawn, **_times(results), **profiled.draw(results)}


def _experiment(
    results: Results, experiment: Experiment, by_name: dict[str, Experiment]
) -> dict[str, Figure]:
    """Draw the accuracies of an experiment, if it has runs and a figure."""
    settings = experiment.settings
    references = {"layers": _AT_4[1:], "comparators": (*_AT_64, *_AT_2[1:])}
    if "resnet110" in by_name:
        references["resnet110-layers"] = by_name["resnet110"].settings[:3]
    if experiment.name in references:
        groups = group_runs(results.runs((*references[experiment.name], *settings)))
        return {experiment.name: bars.finals(groups, experiment.title)}
    drawings = {
        **dict.fromkeys(("fig3", "fig4", "fig5"), _curves),
        **dict.fromkeys(("sweep", "resnet110", "googlenet"), _batch_sizes),
        **dict.fromkeys(("rates", "rates2"), _learning_rates),
        "sizes": _train_sizes,
    }
    if experiment.name not in drawings or not results.runs(settings):
        return {}
    return {experiment.name: drawings[experiment.name](results, experiment)}


def _curves(results, experiment):
    groups = group_runs(results.runs(experiment.settings))
    return curves.loss_and_accuracy(groups, experiment.title)


def _batch_sizes(results, experiment):
    """Draw the accuracies of the three networks by batch size."""
    settings = experiment.settings
    if experiment.name == "sweep":
        settings += (Setting("none", 64),)  # noBN runs at this batch size only
    panels = _accuracy_panels(results, settings, lambda run: run.batch, _BATCH)
    return _trends(results, settings, panels, experiment.title)


def _learning_rates(results, experiment):
    settings = experiment.settings
    (batch,) = {setting.batch for setting in settings}
    panels = _accuracy_panels(
        results, settings, lambda run: run.arguments["lr"], "Learning rate"
    )
    title = f"Accuracy against learning rate at batch size {batch}"
    return _trends(results, settings, panels, title)


def _train_sizes(results, experiment):
    settings, panels = experiment.settings, []
    for batch in dict.fromkeys(setting.batch for setting in settings):
        at_batch = [setting for setting in settings if setting.batch == batch]
        lines = _lines(results, at_batch, lambda run: run.dataset["train"], _test)
        label = f"Final test accuracy at batch size {batch} [%]"
        panels.append(trends.Panel("Training images", label, lines))
    return _trends(results, settings, panels, experiment.title)


def _accuracy_panels(results, settings, x, x_label):
    """Return a panel with test and one with training accuracy."""
    return [
        trends.Panel(
            x_label, f"Final {name} accuracy [%]", _lines(results, settings, x, y)
        )
        for name, y in (("test", _test), ("training", _training))
    ]


def _lines(
    results: Results,
    settings: Iterable[Setting],
    x: Callable[[Run], float],
    y: Callable[[Run], float],
) -> list[trends.Line]:
    """Return a line for each network, with ``y`` of its runs against ``x``."""
    lines = []
    for bn, colour in networks.colours(s.bn for s in settings).items():
        points = {}
        for run in results.runs(s for s in settings if s.bn == bn):
            points.setdefault(x(run), []).append(y(run))
        lines.append(trends.Line(networks.name(bn), colour, points))
    return lines


def _trends(results, settings, panels, title):
    groups = group_runs(results.runs(settings))
    return trends.draw(panels, title, groups, curves.seed_notes(groups))


def _times(results):
    """Draw Table 2."""
    (table2,) = (e for e in experiments(results.scale) if e.name == "table2")
    source = results.source(table2.settings)
    if not all(map(source.by_seed, table2.settings)):
        return {}
    groups = group_runs(source.runs(table2.settings))
    title = "Table 2: total time at batch size 64"
    return {"table2": bars.total_times(groups, title, AS_WRITTEN_SECONDS)}


def _deviations(results, note):
    """Draw how far local statistics are from global ones, where normalBN has runs."""
    settings = [Setting("normal", batch) for batch in results.scale.sweep]
    groups = group_runs(results.runs(settings))
    if not groups:
        return {}
    (blue,) = networks.colours(["normal"]).values()
    by_batch = {group.batch: group.runs for group in groups}
    means = []
    for quantity, dashed in (("mean", False), ("variance", True)):
        points = {
            batch: [np.mean(_per_layer(run, quantity)) for run in runs]
            for batch, runs in by_batch.items()
        }
        means.append(trends.Line(f"{quantity}s", blue, points, dashed))
    layers = []
    for index, (batch, runs) in enumerate(sorted(by_batch.items())):
        distances = np.array([_per_layer(run, "variance") for run in runs])
        points = {layer + 1: list(column) for layer, column in enumerate(distances.T)}
        # The larger the batch, the lighter.
        colour = style.lighter(blue, 0.75 * index / max(len(by_batch) - 1, 1))
        layers.append(trends.Line(f"batch {batch}", colour, points))
    panels = [
        trends.Panel(_BATCH, "Distance, mean over layers", means, log_y=True),
        trends.Panel("Normalization", "Distance of the variances", layers, log_x=False),
    ]
    notes = [
        "distance of a rank's mini-batch from the global one at the end of training, "
        "mean over channels and ranks: of the means in global standard deviations, of "
        "the variances in global variances",
        *curves.seed_notes(groups),
    ]
    title = f"normalBN: local statistics against those of all ranks{note}"
    return {"deviations": trends.draw(panels, title, groups, notes)}


def _per_layer(run, quantity):
    return [layer[quantity] for layer in deviations(run)]


def _test(run):
    return 100 * run.final_accuracy


def _training(run):
    return 100 * run.columns[TRAIN_ACCURACY][-1]
