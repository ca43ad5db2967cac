"""Write the report: Markdown and its figures, from logs alone."""

import itertools
import os
from pathlib import Path
from string import Template

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import (
    costs,
    figures,
    machine,
    map_figures,
    map_report,
    profiled,
    records,
    results,
    scaling_runs,
    search,
    summary,
    tables,
)
from chainer_crossbn.experiments.definitions import SCALES, experiments
from chainer_crossbn.experiments.evaluation import Evaluation
from chainer_crossbn.experiments.scaling import report as scaling_report
from chainer_crossbn.experiments.scaling.observations import Observation
from chainer_crossbn.plotting import files, style

NAME = "REPRODUCTION.md"
QUICK_CHECK = "laptop"
_NOTES = "notes.md"
# The figure that the report opens with: the first of which there are runs.
_HEADLINES = ("sweep", "fig3", "fig4", "fig5")
_SIGNATURE = "<!-- written by chainer_crossbn.experiments; edits are lost -->\n\n"
# The paper's Table 1.
_PAPER_MACHINE = (
    ("CPU", "2x Xeon E5-2620 v2 a node, 12 cores, 2.1 GHz (AVX)"),
    ("memory", "64 GB a node"),
    (
        "accelerators",
        "4 Tesla K80 a node (24 GB GDDR5, 480 GB/s, 5.6 TFLOPS single each; ECC off, "
        "auto boost on; PCIe Gen3 x16)",
    ),
    ("network", "FDR InfiniBand 4X (6.8 GB/s), a star of two switches SX6036"),
    ("system", "CentOS 7.3"),
    ("MPI", "not given"),
    ("framework", "not given"),
)


_FROM_QUICK_CHECK = "These are runs of the quick check."
_BEYOND = """\
## Beyond the paper

The paper ends by asking what becomes of this in networks of over 100 layers, in
GoogLeNet, with statistics of all ranks in only a part of the layers, and with data sets
of other sizes."""


def write(scale, out, path=None, quick_check=None):
    """Write the report of all finished runs, and its figures.

    Args:
        scale (Scale): The scale of the runs.
        out (str): Directory that gathers them; the figures go into ``figures`` there,
            and ``notes.md`` in it, if there, becomes part of the report.
        path (str or None): The report; by default ``REPRODUCTION.md`` in ``out``.
        quick_check (str or None): Directory that gathers runs at laptop scale. Their
            verdicts are shown, too, and they give what the scale does not have.

    Returns:
        pathlib.Path: The report.

    Raises:
        UsageError: If there is no finished run, or a file of another program would be
            overwritten or can't be written.
    """
    path = Path(path or Path(out, NAME))
    quick = quick_check and _evaluation(SCALES[QUICK_CHECK], quick_check)
    found = _evaluation(scale, out, quick)
    folder = Path(out, "figures")
    try:
        if path.exists() and not path.read_bytes().startswith(_SIGNATURE.encode()):
            raise UsageError(f"{path} is not a report of this program; move it away")
        with style.applied():
            drawn = figures.draw(found)
            if found.map:
                drawn.update(map_figures.draw(found.map))
            files.write(list(drawn.items()), folder, suffixes=("png",))
        shown = {
            name: os.path.relpath(folder / f"{name}.png", path.parent) for name in drawn
        }
        path.write_text(_SIGNATURE + _text(found, shown, path.parent), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    return path


def _evaluation(scale, out, quick_check=None):
    found = Evaluation(scale, out, quick_check)
    if not found.runs:
        raise UsageError(f"no finished run of scale {scale.name} in {out}")
    return found


def _text(found, shown, parent):
    template = Template(Path(__file__).with_name("template.md").read_text("utf-8"))
    runs, judged = found.runs, found.judged()
    notes = Path(found.out, _NOTES)
    headline = next((name for name in _HEADLINES if name in shown), None)
    rest = {name: place for name, place in shown.items() if name != headline}
    return template.substitute(
        opening=summary.opening(found),
        summary=summary.table(found, judged),
        headline=f"![The main result]({shown[headline]})\n\n" if headline else "",
        judgements=summary.judgements(judged),
        notes=notes.read_text("utf-8").strip() + "\n\n" if notes.exists() else "",
        machine=tables.machines(
            _PAPER_MACHINE, machine.read(found.out), results.record(runs[0])
        ),
        experiments="\n\n".join(_experiments(_of_paper(found), found, rest)),
        beyond=_beyond(found, rest, parent),
        map=map_report.section(found.map, shown) if found.map else "",
        profile=_profile(found, shown),
        scaling=_scaling(found, parent),
        rules=_rules(found),
        n_runs=len(runs),
        total=costs.in_words(sum(run.total_time for run in runs)),
        searched=_searched(found),
    )


def _of_paper(found):
    """Return the experiments but those beyond the paper, as far as they are shown."""
    extra = [r.optional() for r in found.results.values()]
    return experiments(found.scale) + tuple(dict.fromkeys(itertools.chain(*extra)))


def _experiments(described, found, shown):
    """Yield a section for each experiment, with a part for each rule."""
    for experiment in described:
        parts = []
        rules = found.rules_of(experiment)
        for rule in rules:
            source = found.results[rule].source(experiment.settings)
            if experiment.name == "profile" or not source.runs(experiment.settings):
                continue  # profiles have a section of their own
            parts += [f"#### {rule.capitalize()} rule"] if len(rules) > 1 else []
            if source.scale is not found.scale:
                parts.append(_FROM_QUICK_CHECK)
            parts += _of_rule(experiment, source, rule, found, shown)
        if parts:
            yield "\n\n".join([f"### {experiment.title}", *parts])


def _of_rule(experiment, source, rule, found, shown):
    """Return the figures and tables of an experiment under a rule."""
    name = experiment.name
    figure, local = (found.figure(each, rule) for each in (name, "deviations"))
    parts = [f"![{experiment.title}]({shown[figure]})"] if figure in shown else []
    if name in _HEADLINES and not parts:
        parts.append("The figure is [at the top](#the-paper-reproduced).")
    if name in ("table2", "variants"):
        parts.append(tables.times(source, experiment.settings))
    elif name in ("rates", "rates2"):
        parts.append(tables.rates(source, experiment.settings))
    else:
        parts.append(tables.runs(source, experiment.settings))
    if name == "sweep" and local in shown:
        parts.append(f"![Local statistics]({shown[local]})")
    return parts


def _beyond(found, shown, parent):
    """Write the section on what the paper leaves for the future, as far as there is."""
    if found.scale.beyond:
        sections = _experiments(found.headline.beyond(), found, shown)
        text = "\n\n".join(sections) or 'Nothing of it was run: `ONLY="deep sizes"`.'
    elif found.quick_check and found.quick_check.headline.beyond():
        path = Path(found.quick_check.out, NAME)
        where = "the report of the quick check"
        if path.exists():
            where = f"[{where}]({os.path.relpath(path, parent)}#beyond-the-paper)"
        text = f"This was run at the scale of the quick check alone; {where} has it."
    else:
        return ""
    return f"{_BEYOND}\n\n{text}\n\n"


def _profile(found, shown):
    names = [name for name in shown if name.startswith(("profile", "timeline"))]
    if not names:
        return "No run has a profile."
    figures_of_it = [f"![{name}]({shown[name]})" for name in names]
    table = profiled.table(found.headline)
    parts = [figures_of_it[0], table, *figures_of_it[1:]]
    if profiled.source(found.headline).scale is not found.scale:
        parts.insert(0, _FROM_QUICK_CHECK)
    return "\n\n".join(parts)


def _scaling(found, parent):
    if found.scaling is None:
        return "Its runs are missing."
    name = scaling_runs.NAME
    place = Path(os.path.relpath(Path(found.model.out, name), parent))
    observed = [Observation(**each) for each in found.scaling["observations"]]
    parts = [scaling_report.table(observed)]
    if found.model is not found:
        parts.insert(0, _FROM_QUICK_CHECK)
    parts.append(
        f"[The model of claim 7]({place / name}.md), with the sources of its numbers."
    )
    return "\n\n".join(parts)


def _rules(found):
    """Say what rules there are, and what chose them."""
    if found.scale.rules_from == "map":
        lines = [f"- {name} rule: {rule}" for name, rule in found.rules.items()]
        chosen = "The map of learning rates has chosen the rules, by accuracy alone:"
        return "\n\n".join([chosen, "\n".join(lines)])
    outcome = search.read(found.out)
    text = f"All runs have one rule: {found.headline.rule}."
    if outcome is None:
        return f"{text} It was not searched for."
    return (
        f"{text} It was searched for at the scale `{outcome['scale']}` before any "
        "other run: the score is the mean, over networks and batch sizes, of test "
        "accuracy relative to the best under any rule.\n\n" + tables.grid(outcome)
    )


def _searched(found):
    runs = [records.read(job, found.out) for job in search.planned(found.scale)]
    seconds = sum(run.total_time for run in runs if run)
    return f", the search {costs.in_words(seconds)}" if seconds else ""
