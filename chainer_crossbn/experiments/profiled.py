"""Where the time of the runs goes: figures and a table of their profiles."""

from chainer_crossbn.experiments.definitions import Setting, experiments, optional
from chainer_crossbn.plotting import networks, profiles
from chainer_crossbn.plotting.groups import group_runs
from chainer_crossbn.text import markdown_table

# Whose iteration is drawn rank by rank: the fastest and the slowest of the paper.
_TIME_LINES = tuple(
    Setting(bn, batch, timed=True)
    for bn, batch in (("normal", 2), ("multigpu", 2), ("multigpu", 64))
)
_EXPERIMENTS = ("profile", "table2", "variants")


def source(results):
    """Return where profiles are read, as :meth:`.Results.source` does."""
    return results.source(_settings(results))


def draw(results):
    """Draw what iterations are made of, and time lines of some.

    Args:
        results (Results): The finished runs.

    Returns:
        dict: From a name to a :class:`matplotlib.figure.Figure`; empty without
        profiles.
    """
    results = source(results)
    found = _profiled(results, _settings(results))
    if not found:
        return {}
    drawn = {"profile": profiles.bars(found)}
    for setting in _TIME_LINES:
        for group, pairs in _profiled(results, [setting]):
            name = f"timeline-{setting.bn}-b{setting.batch}"
            drawn[name] = profiles.time_line(group, pairs[0][1])
    return drawn


def table(results):
    """What an iteration is made of, in milliseconds.

    Args:
        results (Results): The finished runs.

    Returns:
        str: The table, in Markdown.
    """
    results = source(results)
    lines = []
    for group, pairs in _profiled(results, _settings(results)):
        components = pairs[0][1].components
        lines.append(
            (
                networks.name(group.network),
                group.batch,
                *(f"{milliseconds:.1f}" for milliseconds in components.values()),
                f"{sum(components.values()):.1f}",
            )
        )
    return markdown_table(("network", "batch", *profiles.COMPONENTS, "in all"), lines)


def _settings(results):
    return dict.fromkeys(
        setting
        for experiment in experiments(results.scale) + optional(results.scale)
        if experiment.name in _EXPERIMENTS
        for setting in experiment.settings
    )


def _profiled(results, settings):
    found, _ = profiles.read_all(group_runs(results.runs(settings)))
    return found
