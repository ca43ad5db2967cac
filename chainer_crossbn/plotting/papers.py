"""Which runs make up which figure of the paper."""

from dataclasses import dataclass

from chainer_crossbn.plotting import bars, curves, networks, style
from chainer_crossbn.plotting import groups as grouping
from chainer_crossbn.text import printable

# Seconds of the runs in the paper's Table 2.
PAPER_SECONDS = {"none": 748, "normal": 804, "multigpu": 1211}
# The same where multigpuBN as the paper writes it has been run, too.
AS_WRITTEN_SECONDS = {"none": 748, "normal": 804, "paper": 1211}


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper and the runs it is made of.

    Attributes:
        name (str): Name of its files.
        title (str): Title of the figure.
        wanted (tuple): Pairs of network and batch size per rank.
    """

    name: str
    title: str
    wanted: tuple

    @property
    def needs(self):
        """The wanted runs in words."""
        words = [f"{networks.name(net)}@{batch}" for net, batch in self.wanted]
        return ", ".join(words)


FIGURES = (
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
TABLE2 = PaperFigure(
    "table2",
    "As the paper's Table 2: total time at batch size 64",
    (("none", 64), ("normal", 64), ("multigpu", 64)),
)


def draw(groups):
    """Draw every figure of the paper that the groups have the runs of.

    Args:
        groups (list): :class:`~chainer_crossbn.plotting.groups.Group` objects.

    Returns:
        tuple: Pairs of a file name's stem and a :class:`matplotlib.figure.Figure`;
        and lines that say which figure is not drawn, and why.
    """
    drawn = []
    missing = []
    for paper in FIGURES:
        scales, reason = _scales(paper, groups)
        missing += [f"{paper.name} not drawn: {reason}"] if reason else []
        for name, members in zip(_names(paper, scales), scales):
            drawn.append((name, curves.loss_and_accuracy(members, paper.title)))
    tables, reason = table2_scales(groups)
    missing += [f"{TABLE2.name} not drawn: {reason}"] if reason else []
    for name, members in zip(_names(TABLE2, tables), tables):
        drawn.append((name, bars.total_times(members, TABLE2.title, PAPER_SECONDS)))
    return drawn, missing


def table2_scales(groups):
    """Groups of finished runs that make up Table 2, a list for each scale.

    Runs with virtual ranks are left out.

    Returns:
        tuple: A list of lists of groups, and why it is empty (None if it is not).
    """
    complete = []
    timed = grouping.timed(groups)
    for group in timed:
        finished = [run for run in group.runs if run.finished]
        if finished:
            complete.append(grouping.Group(finished))
    scales, reason = _scales(TABLE2, complete)
    if reason and not _scales(TABLE2, timed)[1]:
        reason = "its runs are unfinished"
    elif reason and not _scales(TABLE2, groups)[1]:
        reason = "its runs have virtual ranks"
    return scales, reason


def _scales(paper, groups):
    """Lists of groups, each complete and of one scale; or why there is none.

    A learning rate that follows the batch size is no other scale, as long as the
    networks of a batch size share it; the lines' labels then name it.
    """
    members = [g for g in groups if (g.network, g.batch) in paper.wanted]
    pairs = {(g.network, g.batch) for g in members}
    if len(pairs) < len(paper.wanted):
        return [], f"needs {paper.needs}"
    for apart in ((), ("lr",)):
        scales = grouping.by_scale(members, apart)
        whole = [s for s in scales if _is_whole(s, paper)]
        if whole:
            return whole, None
    names = [printable(name) for name in grouping.differences(members)]
    return [], f"its runs differ in {', '.join(names)}"


def _is_whole(scale, paper):
    rates = {(g.batch, grouping.identity(g.settings.get("lr"))) for g in scale}
    batches = {g.batch for g in scale}
    return len(scale) == len(paper.wanted) and len(rates) == len(batches)


def _names(paper, scales):
    """File names; what tells the scales apart is added where they are several."""
    if len(scales) < 2:
        return [paper.name] * len(scales)
    differing = grouping.differences([group for scale in scales for group in scale])
    names = []
    for scale in scales:
        name = f"{paper.name}-{style.slug(grouping.describe(scale[0], differing))}"[:80]
        names.append(f"{name}-{len(names) + 1}" if name in names else name)
    return names
