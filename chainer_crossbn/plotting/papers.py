"""The figures of the paper, as far as there are runs for them."""

from typing import NamedTuple, Optional

from matplotlib.figure import Figure

from chainer_crossbn.plotting import bars, curves, networks, style
from chainer_crossbn.plotting import groups as grouping
from chainer_crossbn.plotting.groups import Group
from chainer_crossbn.text import printable

# Seconds of the runs in the paper's Table 2.
PAPER_SECONDS = {"none": 748, "normal": 804, "multigpu": 1211}
# The same where multigpuBN as the paper writes it has been run, too.
AS_WRITTEN_SECONDS = {"none": 748, "normal": 804, "paper": 1211}


class PaperFigure(NamedTuple):
    """A figure of the paper and the runs it is made of.

    Attributes:
        name (str): Name of its files.
        title (str): Title of the figure.
        runs (tuple): Pairs of network and batch size per rank.
    """

    name: str
    title: str
    runs: tuple[tuple[str, int], ...]


_CURVES = (
    PaperFigure(
        "fig3",
        "As the paper's Fig. 3: three networks at batch size 64",
        (("none", 64), ("normal", 64), ("multigpu", 64)),
    ),
    PaperFigure(
        "fig4",
        "As the paper's Fig. 4: multigpuBN at 2 and normalBN at 64",
        (("normal", 64), ("multigpu", 2)),
    ),
    PaperFigure(
        "fig5",
        "As the paper's Fig. 5: batch size 4, and normalBN at 64",
        (("normal", 4), ("multigpu", 4), ("normal", 64)),
    ),
)
_TABLE2 = PaperFigure(
    "table2",
    "As the paper's Table 2: total time at batch size 64",
    (("none", 64), ("normal", 64), ("multigpu", 64)),
)


def draw(groups: list[Group]) -> tuple[list[tuple[str, Figure]], list[str]]:
    """Draw every figure of the paper that the groups have the runs of.

    Returns:
        tuple: Pairs of a file name's stem and a figure; and lines that say which
        figures are not drawn, and why.
    """
    drawn = []
    missing = []
    for paper in (*_CURVES, _TABLE2):
        is_table = paper is _TABLE2
        scales, reason = table2_scales(groups) if is_table else _scales(paper, groups)
        missing += [f"{paper.name} not drawn: {reason}"] if reason else []
        for name, members in zip(_names(paper, scales), scales):
            if is_table:
                figure = bars.total_times(members, paper.title, PAPER_SECONDS)
            else:
                figure = curves.loss_and_accuracy(members, paper.title)
            drawn.append((name, figure))
    return drawn, missing


def table2_scales(
    groups: list[Group],
) -> tuple[list[list[Group]], Optional[str]]:
    """Return the groups of finished runs that make up Table 2, a list per scale.

    Runs with virtual ranks are left out.

    Returns:
        tuple: A list of lists of groups, and why it is empty (None if it is not).
    """
    timed = grouping.timed(groups)
    finished = [[run for run in group.runs if run.finished] for group in timed]
    complete = [Group(runs) for runs in finished if runs]
    scales, reason = _scales(_TABLE2, complete)
    if reason and not _scales(_TABLE2, timed)[1]:
        reason = "its runs are unfinished"
    elif reason and not _scales(_TABLE2, groups)[1]:
        reason = "its runs have virtual ranks"
    return scales, reason


def _scales(
    paper: PaperFigure, groups: list[Group]
) -> tuple[list[list[Group]], Optional[str]]:
    """Return lists of groups, each complete and of one scale; or why there is none.

    A learning rate that depends on the batch size is not another scale, if the
    networks of a batch size share it; then the labels of the lines name it.
    """
    members = [g for g in groups if (g.network, g.batch) in paper.runs]
    if len({(g.network, g.batch) for g in members}) < len(paper.runs):
        needs = [f"{networks.name(network)}@{batch}" for network, batch in paper.runs]
        return [], f"needs {', '.join(needs)}"
    for ignored in ((), ("lr",)):
        scales = grouping.by_scale(members, ignored)
        complete = [scale for scale in scales if _is_complete(scale, paper)]
        if complete:
            return complete, None
    names = [printable(name) for name in grouping.differences(members)]
    return [], f"its runs differ in {', '.join(names)}"


def _is_complete(scale, paper):
    rates = {(g.batch, grouping.identity(g.settings.get("lr"))) for g in scale}
    batches = {g.batch for g in scale}
    return len(scale) == len(paper.runs) and len(rates) == len(batches)


def _names(paper, scales):
    """Return file names, which say how the scales differ where there are several."""
    if len(scales) < 2:
        return [paper.name] * len(scales)
    differing = grouping.differences([group for scale in scales for group in scale])
    names = []
    for scale in scales:
        name = f"{paper.name}-{style.slug(grouping.describe(scale[0], differing))}"[:80]
        names.append(f"{name}-{len(names) + 1}" if name in names else name)
    return names
