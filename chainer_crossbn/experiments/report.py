"""Write the report, in Markdown with figures, from logs alone."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Template
from typing import Optional

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import (
    costs,
    figures,
    machine,
    map_figures,
    map_report,
    profiled,
    records,
    scaling_runs,
    search,
    summary,
    tables,
)
from chainer_crossbn.experiments.claims import judge_claims
from chainer_crossbn.experiments.definitions import (
    SCALES,
    Experiment,
    Scale,
    beyond,
    experiments,
    optional,
)
from chainer_crossbn.experiments.results import Evaluation
from chainer_crossbn.experiments.rules import read_choice
from chainer_crossbn.experiments.scaling import report as scaling_report
from chainer_crossbn.experiments.scaling.observations import Observation
from chainer_crossbn.plotting import files, style

NAME = "REPRODUCTION.md"
QUICK_CHECK = "laptop"
_NOTES = "notes.md"
# The figure that opens the report: the first of which there are runs.
_HEADLINES = ("sweep", "fig3", "fig4", "fig5")
_SIGNATURE = "<!-- written by chainer_crossbn.experiments; edits are lost -->\n\n"
# The paper's Table 1.
_PAPER_MACHINE = (
    ("CPU", "2x Xeon E5-2620 v2 per node, 12 cores, 2.1 GHz (AVX)"),
    ("memory", "64 GB per node"),
    (
        "accelerators",
        "4 Tesla K80 per node (24 GB GDDR5, 480 GB/s, 5.6 TFLOPS single each; ECC off, "
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

The paper leaves open what happens in networks of over 100 layers, in GoogLeNet, with
statistics of all ranks in only a part of the layers, and with data sets of other
sizes."""

# Name of a figure -> its path, relative to the report.
_Paths = dict[str, str]


def write(
    scale: Scale,
    out: str,
    path: Optional[str] = None,
    quick_check: Optional[str] = None,
) -> Path:
    """Write the report of all finished runs, and its figures.

    Args:
        scale (Scale): The scale of the runs.
        out (str): Directory that contains them. The figures go into ``figures`` there,
            and its ``notes.md``, if there is one, becomes part of the report.
        path (str or None): The report; by default ``REPRODUCTION.md`` in ``out``.
        quick_check (str or None): Directory that contains runs at laptop scale. The
            report shows their verdicts, and takes from them what the scale lacks.

    Returns:
        pathlib.Path: The report.

    Raises:
        UsageError: If there is no finished run, or a file of another program would be
            overwritten or can't be written.
    """
    path = Path(path or Path(out, NAME))
    quick = quick_check and _evaluation(SCALES[QUICK_CHECK], quick_check)
    evaluation = _evaluation(scale, out, quick)
    folder = Path(out, "figures")
    try:
        if path.exists() and not path.read_bytes().startswith(_SIGNATURE.encode()):
            raise UsageError(f"{path} is not a report of this program; move it away")
        with style.applied():
            drawn = figures.draw(evaluation)
            if evaluation.map:
                drawn.update(map_figures.draw(evaluation.map))
            files.write(list(drawn.items()), folder, suffixes=("png",))
        paths = {
            name: os.path.relpath(folder / f"{name}.png", path.parent) for name in drawn
        }
        text = _text(evaluation, paths, path.parent)
        path.write_text(_SIGNATURE + text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    return path


def _evaluation(scale, out, quick_check=None):
    evaluation = Evaluation(scale, out, quick_check)
    if not evaluation.runs:
        raise UsageError(f"no finished run of scale {scale.name} in {out}")
    return evaluation


def _text(evaluation: Evaluation, paths: _Paths, parent: Path) -> str:
    template = Template(Path(__file__).with_name("template.md").read_text("utf-8"))
    runs, judged = evaluation.runs, judge_claims(evaluation)
    notes = Path(evaluation.out, _NOTES)
    headline = next((name for name in _HEADLINES if name in paths), None)
    rest = {name: path for name, path in paths.items() if name != headline}
    machines = machine.read(evaluation.out)
    return template.substitute(
        opening=summary.opening(evaluation),
        summary=summary.table(evaluation, judged),
        headline=f"![The main result]({paths[headline]})\n\n" if headline else "",
        judgements=summary.judgements(judged),
        notes=notes.read_text("utf-8").strip() + "\n\n" if notes.exists() else "",
        machine=tables.machines(_PAPER_MACHINE, machines, runs[0].record),
        experiments="\n\n".join(_sections(_of_paper(evaluation), evaluation, rest)),
        beyond=_beyond(evaluation, rest, parent),
        map=map_report.section(evaluation.map, paths) if evaluation.map else "",
        profile=_profile(evaluation, paths),
        scaling=_scaling(evaluation, parent),
        rules=_rules(evaluation),
        n_runs=len(runs),
        total=costs.format_seconds(sum(run.total_time for run in runs)),
        searched=_search_time(evaluation),
    )


def _of_paper(evaluation: Evaluation) -> tuple[Experiment, ...]:
    """Return the experiments of the paper, and optional ones with their own runs."""
    scale = evaluation.scale
    with_runs = [
        experiment
        for results in evaluation.results.values()
        for experiment in results.with_own_runs(optional(scale))
    ]
    return experiments(scale) + tuple(dict.fromkeys(with_runs))


def _sections(
    described: Iterable[Experiment], evaluation: Evaluation, paths: _Paths
) -> Iterator[str]:
    """Yield a section for each experiment, with a part for each rule."""
    for experiment in described:
        parts = []
        rules = evaluation.rules_for(experiment)
        for rule in rules:
            source = evaluation.results[rule].source(experiment.settings)
            if experiment.name == "profile" or not source.runs(experiment.settings):
                continue  # profiles have a section of their own
            parts += [f"#### {rule.capitalize()} rule"] if len(rules) > 1 else []
            if source.scale is not evaluation.scale:
                parts.append(_FROM_QUICK_CHECK)
            figure, local = (
                paths.get(evaluation.figure_name(name, rule))
                for name in (experiment.name, "deviations")
            )
            parts += _figures_and_table(experiment, source, figure, local)
        if parts:
            yield "\n\n".join([f"### {experiment.title}", *parts])


def _figures_and_table(experiment, results, figure, local):
    """Return the parts of a section; the paths of its figures may be None."""
    name, settings = experiment.name, experiment.settings
    parts = [f"![{experiment.title}]({figure})"] if figure else []
    if name in _HEADLINES and not parts:
        parts.append("The figure is [at the top](#the-paper-reproduced).")
    if name in ("table2", "variants"):
        parts.append(tables.times(results, settings))
    elif name in ("rates", "rates2"):
        parts.append(tables.learning_rates(results, settings))
    else:
        parts.append(tables.accuracies(results, settings))
    if name == "sweep" and local:
        parts.append(f"![Local statistics]({local})")
    return parts


def _beyond(evaluation: Evaluation, paths: _Paths, parent: Path) -> str:
    """Return the section on what the paper leaves for the future, or nothing."""
    quick = evaluation.quick_check
    if evaluation.scale.beyond:
        with_runs = evaluation.headline.with_own_runs(beyond(evaluation.scale))
        text = "\n\n".join(_sections(with_runs, evaluation, paths))
        text = text or 'None of it was run: `ONLY="deep sizes"`.'
    elif quick and quick.headline.with_own_runs(beyond(quick.scale)):
        report = Path(quick.out, NAME)
        where = "the report of the quick check"
        if report.exists():
            where = f"[{where}]({os.path.relpath(report, parent)}#beyond-the-paper)"
        text = f"This was run at the scale of the quick check alone; {where} has it."
    else:
        return ""
    return f"{_BEYOND}\n\n{text}\n\n"


def _profile(evaluation: Evaluation, paths: _Paths) -> str:
    shown = [
        f"![{name}]({path})"
        for name, path in paths.items()
        if name.startswith(("profile", "timeline"))
    ]
    if not shown:
        return "No run has a profile."
    parts = [shown[0], profiled.table(evaluation.headline), *shown[1:]]
    if profiled.source(evaluation.headline).scale is not evaluation.scale:
        parts.insert(0, _FROM_QUICK_CHECK)
    return "\n\n".join(parts)


def _scaling(evaluation: Evaluation, parent: Path) -> str:
    if evaluation.scaling is None:
        return "Its runs are missing."
    name, source = scaling_runs.NAME, evaluation.scaling_source
    folder = Path(os.path.relpath(Path(source.out, name), parent))
    observed = [Observation(**each) for each in evaluation.scaling["observations"]]
    parts = [scaling_report.table(observed)]
    if source is not evaluation:
        parts.insert(0, _FROM_QUICK_CHECK)
    parts.append(
        f"[The model of claim 7]({folder / name}.md), with the sources of its numbers."
    )
    return "\n\n".join(parts)


def _rules(evaluation: Evaluation) -> str:
    """Say which rules there are, and how they were chosen."""
    if not evaluation.scale.search:
        lines = [f"- {name} rule: {rule}" for name, rule in evaluation.rules.items()]
        chosen = "The map of learning rates has chosen the rules, by accuracy alone:"
        return "\n\n".join([chosen, "\n".join(lines)])
    choice = read_choice(evaluation.out, search.NAME)
    text = f"All runs have one rule: {evaluation.headline.rule}."
    if choice is None:
        return f"{text} It was not searched for."
    return (
        f"{text} It was searched for at the scale `{choice['scale']}` before any "
        "other run: the score is the mean, over networks and batch sizes, of test "
        "accuracy relative to the best under any rule.\n\n" + tables.search_grid(choice)
    )


def _search_time(evaluation: Evaluation) -> str:
    plan = search.planned(evaluation.scale)
    runs = [records.read(job, evaluation.out) for job in plan]
    seconds = sum(run.total_time for run in runs if run)
    return f", the search {costs.format_seconds(seconds)}" if seconds else ""
