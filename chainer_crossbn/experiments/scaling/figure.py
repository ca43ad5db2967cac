"""The time of an iteration against the number of ranks."""

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from chainer_crossbn.experiments.scaling import extrapolation
from chainer_crossbn.plotting import networks, style

_TICKS = extrapolation.RANKS[::2]


def draw(extrapolated, scale):
    """Draw the ranges of the extrapolation.

    Args:
        extrapolated (list of Extrapolated): What the model says.
        scale (Scale): What it was fitted to.

    Returns:
        matplotlib.figure.Figure: A row for each batch size, a column for each
        interconnect.
    """
    systems = list(dict.fromkeys(each.system for each in extrapolated))
    colours = networks.colours(each.network for each in extrapolated)
    rows = len(extrapolation.BATCHES)
    figure = Figure(figsize=(11.0, 2.4 * rows + 1.2), layout="constrained")
    figure.suptitle(f"Time of an iteration ({extrapolation.LABEL})")
    axes = figure.subplots(rows, len(systems), sharex=True, sharey="row")
    for row, batch in zip(axes, extrapolation.BATCHES):
        for ax, system in zip(row, systems):
            for network, colour in colours.items():
                found = [
                    each
                    for each in extrapolated
                    if (each.system, each.batch, each.network)
                    == (system, batch, network)
                ]
                ax.fill_between(
                    [each.ranks for each in found],
                    [each.low * 1e3 for each in found],
                    [each.high * 1e3 for each in found],
                    color=colour,
                    alpha=0.5,
                    linewidth=0.8,
                    label=networks.name(network),
                )
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_locator(FixedLocator(_TICKS))
            ax.xaxis.set_major_formatter("{x:.0f}")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_ylim(bottom=0)
        row[0].set_ylabel(f"batch size {batch} [ms]")
    for ax, system in zip(axes[0], systems):
        ax.set_title(style.wrap(system, 1.6))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    notes = (
        "band: from the lowest latencies, peak bandwidth and normal skew to the "
        "highest, half of the bandwidth and exponential tails"
    )
    text = "\n".join(
        (
            "Ranks",
            *(style.wrap(line, 11.0) for line in (f"fitted to {scale.words}", notes)),
        )
    )
    figure.supxlabel(text, fontsize=8, color="#444444", linespacing=1.35)
    return figure
