"""The figures of the report."""

import functools

import numpy as np

from chainer_crossbn.experiments import profiled
from chainer_crossbn.experiments.definitions import Setting, experiments
from chainer_crossbn.experiments.results import deviations
from chainer_crossbn.experiments.tables import seconds_per_image
from chainer_crossbn.plotting import bars, curves, networks, style, trends
from chainer_crossbn.plotting.groups import group_runs, median_of
from chainer_crossbn.plotting.papers import PAPER_SECONDS
from chainer_crossbn.plotting.runs import TRAIN_ACCURACY

_BATCH = "Batch size per rank"


def draw(results):
    """Draw all figures that there are runs for.

    Args:
        results (Results): The finished runs.

    Returns:
        dict: From the name of an experiment, and of further figures, to a
        :class:`matplotlib.figure.Figure`.
    """
    beyond = results.beyond()
    every = [*experiments(results.scale), *beyond]
    by_name = {experiment.name: experiment for experiment in every}
    drawn = {}
    for name in ("fig3", "fig4", "fig5"):
        runs = results.runs(by_name[name].settings)
        if runs:
            title = by_name[name].title
            drawn[name] = curves.loss_and_accuracy(group_runs(runs), title)
    of_paper = [Setting(bn, 64) for bn in PAPER_SECONDS]
    if all(map(results.by_seed, of_paper)):
        groups = group_runs(results.runs(of_paper))
        title = "Table 2: total time at batch size 64"
        drawn["table2"] = bars.total_times(groups, title, PAPER_SECONDS)
    drawings = {"sweep": _sweep, "rates": _rates, "rates2": _rates, "sizes": _sizes}
    # Beyond the paper no times are given, as in the tables.
    untimed = functools.partial(_sweep, timed=False)
    drawings.update(resnet110=untimed, googlenet=untimed)
    for name, function in drawings.items():
        runs = results.runs(by_name[name].settings) if name in by_name else []
        if runs:
            drawn[name] = function(results, by_name[name], group_runs(runs))
    normal = [Setting("normal", batch) for batch in results.scale.sweep]
    if results.runs(normal):
        drawn["deviations"] = _deviations(results, group_runs(results.runs(normal)))
    references = {
        "layers": _at(4)[1:],
        "comparators": (*_at(64), *_at(2)[1:]),
    }
    if {"resnet110", "resnet110-layers"} <= set(by_name):
        references["resnet110-layers"] = by_name["resnet110"].settings[:3]
    for name, others in references.items():
        if results.runs(by_name[name].settings):
            settings = *others, *by_name[name].settings
            timed = by_name[name] not in beyond
            drawn[name] = _finals(results, settings, by_name[name].title, timed)
    return {**drawn, **profiled.draw(results)}


def _at(batch):
    return tuple(Setting(bn, batch) for bn in ("none", "normal", "multigpu"))


def _finals(results, settings, title, timed):
    groups = group_runs(results.runs(settings))
    if not timed:
        return bars.finals(groups, title)
    # As in the tables: only the first seed's runs had the machine to themselves.
    runs = [
        run
        for setting in settings
        for run in (
            results.runs([setting]) if setting.batch == 64 else results.first(setting)
        )
    ]
    notes = ["time at batch sizes other than 64: of the first seed"]
    return bars.finals(groups, title, group_runs(runs), notes)


def _sweep(results, experiment, groups, timed=True):
    colours = networks.colours(dict.fromkeys(s.bn for s in experiment.settings))
    accuracies, times = [], []
    for bn, colour in colours.items():
        runs = {
            setting.batch: results.runs([setting])
            for setting in experiment.settings
            if setting.bn == bn and results.by_seed(setting)
        }
        test, training = (
            {batch: [of(run) for run in found] for batch, found in runs.items()}
            for of in (_test, _training)
        )
        time = {
            batch: [1e3 * seconds_per_image(found[0])] for batch, found in runs.items()
        }
        name = networks.name(bn)
        accuracies.append(trends.Line(f"{name}, test", colour, test))
        accuracies.append(trends.Line(f"{name}, train", colour, training, dashed=True))
        times.append(trends.Line(name, colour, time))
    panels = [trends.Panel(_BATCH, "Final accuracy [%]", accuracies)]
    if timed:
        panels.append(trends.Panel(_BATCH, "Training time per image [ms]", times))
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


def _deviations(results, groups):
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
    title = "normalBN: local statistics against those of all ranks"
    return trends.draw(panels, title, groups, notes)


def _of_seeds(groups):
    median = median_of(groups)
    return [f"line: {median}; band: their range"] if median else []


def _of_layers(run, what):
    return [layer[what] for layer in deviations(run)]


def _test(run):
    return 100 * run.final_accuracy


def _training(run):
    return 100 * run.columns[TRAIN_ACCURACY][-1]
