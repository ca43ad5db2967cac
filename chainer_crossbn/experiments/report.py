"""Write the report: Markdown and its figures, from logs alone."""

import os
from pathlib import Path
from string import Template

from chainer_crossbn.command_line import UsageError
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
    tables,
)
from chainer_crossbn.experiments.claims import CLAIMS
from chainer_crossbn.experiments.definitions import every, experiments
from chainer_crossbn.experiments.learning_rate_map import MapResults
from chainer_crossbn.plotting import files, networks, style

NAME = "REPRODUCTION.md"
_NOTES = "notes.md"
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


def write(scale, out, path=None):
    """Write the report of all finished runs, and its figures.

    Args:
        scale (Scale): The scale of the runs.
        out (str): Directory that gathers them; the figures go into ``figures`` there,
            and ``notes.md`` in it, if there, becomes part of the report.
        path (str or None): The report; by default ``REPRODUCTION.md`` in ``out``.

    Returns:
        pathlib.Path: The report.

    Raises:
        UsageError: If there is no finished run, or a file of another program would be
            overwritten or can't be written.
    """
    path = Path(path or Path(out, NAME))
    found = results.Results(scale, out)
    settings = dict.fromkeys(s for e in every(scale) for s in e.settings)
    runs = found.runs(settings)
    if not runs:
        raise UsageError(f"no finished run of scale {scale.name} in {out}")
    of_map = MapResults(scale, out)
    folder = Path(out, "figures")
    try:
        if path.exists() and not path.read_bytes().startswith(_SIGNATURE.encode()):
            raise UsageError(f"{path} is not a report of this program; move it away")
        with style.applied():
            drawn = {**figures.draw(found), **map_figures.draw(of_map)}
            files.write(list(drawn.items()), folder, suffixes=("png",))
        shown = {
            name: os.path.relpath(folder / f"{name}.png", path.parent) for name in drawn
        }
        section = map_report.section(of_map, shown)
        text = _SIGNATURE + _text(found, runs, shown, path.parent, section)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    return path


def _text(found, runs, shown, parent, of_map):
    template = Template(Path(__file__).with_name("template.md").read_text("utf-8"))
    scale, out = found.scale, found.out
    judged = [(claim, claim.judged(found)) for claim in CLAIMS]
    outcome = search.read(out)
    tried = [records.read(job, out) for job in search.planned(scale)]
    searching = sum(run.total_time for run in tried if run)
    notes = Path(out, _NOTES)
    return template.substitute(
        ranks=scale.ranks,
        scale=scale.name,
        size=_size(scale, runs[0]),
        machine=tables.machines(
            _PAPER_MACHINE, machine.read(out), results.record(runs[0])
        ),
        summary=_summary(judged),
        judgements="\n\n".join(_judgement(*pair) for pair in judged),
        notes=notes.read_text("utf-8").strip() + "\n\n" if notes.exists() else "",
        experiments="\n\n".join(
            _experiments(experiments(scale) + found.optional(), found, shown)
        ),
        beyond="\n\n".join(_experiments(found.beyond(), found, shown))
        or 'Nothing of it was run: `ONLY="deep sizes"`.',
        map=of_map,
        profile=_profile(found, shown),
        scaling=_scaling(found, parent),
        rule=found.rule,
        search=_search(outcome),
        n_runs=len(runs),
        total=costs.in_words(sum(run.total_time for run in runs)),
        searched=f", the search {costs.in_words(searching)}" if searching else "",
    )


def _size(scale, run):
    n_train, n_test = run.dataset["train"], run.dataset["test"]
    return (
        f"VGG16 of width {scale.width} with {scale.fc_units:,} units in the hidden\n"
        f"fully connected layers, {n_train:,} training and {n_test:,} test images of\n"
        f"{style.setting('dataset', scale.dataset)}, "
        f"{style.setting('epoch', scale.epochs)}"
    )


def _summary(judged):
    lines = ["| claim | the paper | verdict |", "| --- | --- | --- |"]
    for claim, judgement in judged:
        lines.append(f"| {claim.number} | {claim.paper} | **{judgement.verdict}** |")
    return "\n".join(lines)


def _judgement(claim, judgement):
    found = "\n".join(f"- {line}" for line in judgement.found)
    return (
        f"### Claim {claim.number}: {judgement.verdict}\n\n"
        f"The paper: {claim.paper}.\n\nCriterion: {claim.criterion}\n\n{found}"
    )


def _experiments(described, found, shown):
    for experiment in described:
        name = experiment.name
        if name == "profile" or not found.runs(experiment.settings):
            continue  # profiles have a section of their own
        parts = [f"### {experiment.title}"]
        if name in shown:
            parts.append(f"![{experiment.title}]({shown[name]})")
        if name in ("table2", "variants"):
            parts.append(tables.times(found, experiment.settings))
        elif name in ("rates", "rates2"):
            parts.append(tables.rates(found, experiment.settings))
        else:
            parts.append(tables.runs(found, experiment.settings))
        if name == "sweep" and "deviations" in shown:
            parts.append(f"![Local statistics]({shown['deviations']})")
        yield "\n\n".join(parts)


def _profile(found, shown):
    names = [name for name in shown if name.startswith(("profile", "timeline"))]
    if not names:
        return "No run has a profile."
    figures_of_it = [f"![{name}]({shown[name]})" for name in names]
    return "\n\n".join([figures_of_it[0], profiled.table(found), *figures_of_it[1:]])


def _scaling(found, parent):
    if found.scaling is None:
        return "Its runs are missing."
    name = scaling_runs.NAME
    place = Path(os.path.relpath(Path(found.out, name), parent))
    checks = [
        (
            networks.name(check["network"]),
            check["batch"],
            check["ranks"],
            check["left_out"],
            f"{1e3 * check['predicted']:.1f}",
            f"{1e3 * check['measured']:.1f}",
            f"{check['error']:+.0%}",
        )
        for check in found.scaling["checks"]
    ]
    head = ("network", "batch", "ranks", "fitted without")
    head += ("predicted [ms]", "measured [ms]", "error")
    parts = [tables.markdown(head, checks)]
    if Path(found.out, name, f"{name}.png").exists():
        parts.append(f"![Time of an iteration]({place / name}.png)")
    parts.append(f"[All of the model]({place / name}.md), with its sources.")
    return "\n\n".join(parts)


def _search(outcome):
    if outcome is None:
        return "It was not searched for."
    return (
        f"It was searched for at the scale `{outcome['scale']}` before any other run: "
        "the score is the mean, over networks and batch sizes, of test accuracy "
        "relative to the best under any rule.\n\n" + tables.grid(outcome)
    )
