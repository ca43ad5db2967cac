"""The figures of the report."""

import numpy as np

from chainer_crossbn.experiments import profiled
from chainer_crossbn.experiments.definitions import Setting, experiments
from chainer_crossbn.experiments.results import deviations
from chainer_crossbn.plotting import bars, curves, networks, style, trends
from chainer_crossbn.plotting.groups import group_runs, median_of
from chainer_crossbn.plotting.papers import AS_WRITTEN_SECONDS
from chainer_crossbn.runs.reading import TRAIN_ACCURACY

_BATCH = "Batch size per rank"
_DEVIATIONS = "normalBN: local statistics against those of all ranks"


def draw(evaluation):
    """Draw all figures that there are runs for, but for those of the map.

    Args:
        evaluation (Evaluation): The finished runs.

    Returns:
        dict: From the name of a figure, as :meth:`.Evaluation.figure` gives it for an
        experiment, to a :class:`matplotlib.figure.Figure`.
    """
    drawn = {}
    for rule, results in evaluation.results.items():
        by_name = evaluation.described(rule)
        figures = _of_rule(results, by_name)
        if "sweep" in figures:
            title = f"{_DEVIATIONS}{evaluation.note(rule, by_name['sweep'])}"
            figures.update(_deviations(results, title))
        for name, figure in figures.items():
            drawn[evaluation.figure(name, rule)] = figure
    results = evaluation.headline
    return {**drawn, **_times(results), **profiled.draw(results)}


def _of_rule(results, by_name):
    """Draw the accuracies under a rule."""
    drawn = {}
    for name in ("fig3", "fig4", "fig5"):
        runs = results.runs(by_name[name].settings) if name in by_name else []
        if runs:
            title = by_name[name].title
            drawn[name] = curves.loss_and_accuracy(group_runs(runs), title)
    drawings = {"sweep": _sweep, "rates": _rates, "rates2": _rates, "sizes": _sizes}
    drawings.update(resnet110=_sweep, googlenet=_sweep)
    for name, function in drawings.items():
        runs = results.runs(by_name[name].settings) if name in by_name else []
        if runs:
            drawn[name] = function(results, by_name[name], group_runs(runs))
    references = {
        "layers": _at(4)[1:],
        "comparators": (*_at(64), *_at(2)[1:]),
    }
    if {"resnet110", "resnet110-layers"} <= set(by_name):
        references["resnet110-layers"] = by_name["resnet110"].settings[:3]
    for name, others in references.items():
        if name in by_name:
            settings = *others, *by_name[name].settings
            groups = group_runs(results.runs(settings))
            drawn[name] = bars.finals(groups, by_name[name].title)
    return drawn


def _times(results):
    """Draw Table 2."""
    (table2,) = (e for e in experiments(results.scale) if e.name == "table2")
    source = results.source(table2.settings)
    if not all(map(source.by_seed, table2.settings)):
        return {}
    groups = group_runs(source.runs(table2.settings))
    title = "Table 2: total time at batch size 64"
    return {"table2": bars.total_times(groups, title, AS_WRITTEN_SECONDS)}


def _at(batch):
    return tuple(Setting(bn, batch) for bn in ("none", "normal", "multigpu"))


def _sweep(results, experiment, _):
    """Draw the main result: accuracies of the three networks by batch size."""
    own = experiment.settings
    if experiment.name == "sweep":
        own += (Setting("none", 64),)  # the one batch size at which it is run
    groups = group_runs(results.runs(own))
    colours = networks.colours(dict.fromkeys(setting.bn for setting in own))
    panels = []
    for of, label in ((_test, "test"), (_training, "training")):
        lines = []
        for bn, colour in colours.items():
            points = {
                setting.batch: [of(run) for run in results.runs([setting])]
                for setting in own
                if setting.bn == bn and results.by_seed(setting)
            }
            lines.append(trends.Line(networks.name(bn), colour, points))
        panels.append(trends.Panel(_BATCH, f"Final {label} accuracy [%]", lines))
    return trends.draw(panels, experiment.title, groups, _of_seeds(groups))


def _rates(results, experiment, groups):
    (batch,) = {setting.batch for setting in experiment.settings}
    colours = networks.colours(dict.fromkeys(s.bn for s in experiment.settings))
    panels = []
    for of, label in ((_test, "test"), (_training, "training")):
        lines = []
        for bn, colour in colours.items():
            points = {}
            for setting in experiment.settings:
                if setting.bn == bn:
                    for run in results.runs([setting]):
                        rate = run.arguments["lr"]
                        points.setdefault(rate, []).append(of(run))
            lines.append(trends.Line(networks.name(bn), colour, points))
        panels.append(
            trends.Panel("Learning rate", f"Final {label} accuracy [%]", lines)
        )
    title = f"Accuracy against learning rate at batch size {batch}"
    return trends.draw(panels, title, groups, _of_seeds(groups))


def _sizes(results, experiment, groups):
    colours = networks.colours(dict.fromkeys(s.bn for s in experiment.settings))
    panels = []
    for batch in dict.fromkeys(setting.batch for setting in experiment.settings):
        lines = []
        for bn, colour in colours.items():
            points = {}
            for setting in experiment.settings:
                if (setting.bn, setting.batch) == (bn, batch):
                    for run in results.runs([setting]):
                        points.setdefault(run.dataset["train"], []).append(_test(run))
            lines.append(trends.Line(networks.name(bn), colour, points))
        label = f"Final test accuracy at batch size {batch} [%]"
        panels.append(trends.Panel("Training images", label, lines))
    return trends.draw(panels, experiment.title, groups, _of_seeds(groups))


def _deviations(results, title):
    """Draw local statistics, where normalBN has been run."""
    normal = [Setting("normal", batch) for batch in results.scale.sweep]
    groups = group_runs(results.runs(normal))
    if not groups:
        return {}
    (blue,) = networks.colours(["normal"]).values()
    looks = {"mean": (blue, False), "variance": (blue, True)}
    over_batches, over_layers = [], []
    runs = {g.batch: g.runs for g in groups}
    for what, (colour, dashed) in looks.items():
        points = {
            batch: [np.mean(_of_layers(run, what)) for run in found]
            for batch, found in runs.items()
        }
        over_batches.append(trends.Line(f"{what}s", colour, points, dashed))
    batches = sorted(runs)
    for index, batch in enumerate(batches):
        layers = np.array([_of_layers(run, "variance") for run in runs[batch]])
        points = {place + 1: list(values) for place, values in enumerate(layers.T)}
        # The larger the batch, the lighter.
        colour = style.lighter(blue, 0.75 * index / max(len(batches) - 1, 1))
        over_layers.append(trends.Line(f"batch {batch}", colour, points))
    panels = [
        trends.Panel(_BATCH, "Distance, mean over layers", over_batches, log_y=True),
        trends.Panel(
            "Normalization", "Distance of the variances", over_layers, log_x=False
        ),
    ]
    notes = [
        "distance of a rank's mini-batch from the global one at the end of training, "
        "mean over channels and ranks: of the means in global standard deviations, of "
        "the variances in global variances",
        *_of_seeds(groups),
    ]
    return {"deviations": trends.draw(panels, title, groups, notes)}


def _of_seeds(groups):
    median = median_of(groups)
    return [f"line: {median}; band: their range"] if median else []


def _of_layers(run, what):
    return [layer[what] for layer in deviations(run)]


def _test(run):
    return 100 * run.final_accuracy


def _training(run):
    return 100 * run.columns[TRAIN_ACCURACY][-1]
