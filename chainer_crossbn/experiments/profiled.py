"""Where the time of the runs goes: figures and a table of their profiles."""

from matplotlib.figure import Figure

from chainer_crossbn.experiments.definitions import Setting, experiments, optional
from chainer_crossbn.experiments.results import Results
from chainer_crossbn.plotting import networks, profiles
from chainer_crossbn.plotting.groups import group_runs
from chainer_crossbn.text_tables import markdown

# Whose iteration is drawn rank by rank: the fastest and the slowest of the paper.
_TIME_LINES = tuple(
    Setting(bn, batch, timed=True)
    for bn, batch in (("normal", 2), ("multigpu", 2), ("multigpu", 64))
)
_EXPERIMENTS = ("profile", "table2", "variants")


def source(results: Results) -> Results:
    """Return the results that have the profiles; see :meth:`.Results.source`."""
    return results.source(_settings(results))


def draw(results: Results) -> dict[str, Figure]:
    """Draw what iterations are made of, and time lines of some.

    Returns:
        dict: Name -> figure; empty without profiles.
    """
    results = source(results)
    profiled = _profiled(results, _settings(results))
    if not profiled:
        return {}
    drawn = {"profile": profiles.bars(profiled)}
    for setting in _TIME_LINES:
        for group, pairs in _profiled(results, [setting]):
            name = f"timeline-{setting.bn}-b{setting.batch}"
            drawn[name] = profiles.time_line(group, pairs[0][1])
    return drawn


def table(results: Results) -> str:
    """Return a table of the milliseconds that the parts of an iteration take.

    Returns:
        str: The table, in Markdown.
    """
    results = source(results)
    rows = []
    for group, pairs in _profiled(results, _settings(results)):
        components = pairs[0][1].components
        times = [*components.values(), sum(components.values())]
        name = networks.name(group.network)
        rows.append((name, group.batch, *(f"{time:.1f}" for time in times)))
    return markdown(("network", "batch", *profiles.COMPONENTS, "in all"), rows)


def _settings(results):
    return dict.fromkeys(
        setting
        for experiment in experiments(results.scale) + optional(results.scale)
        if experiment.name in _EXPERIMENTS
        for setting in experiment.settings
    )


def _profiled(results, settings):
    profiled, _ = profiles.read_all(group_runs(results.runs(settings)))
    return profiled
