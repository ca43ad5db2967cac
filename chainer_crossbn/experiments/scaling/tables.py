"""The tables of the model, in Markdown."""

from chainer_crossbn.experiments.scaling import extrapolation
from chainer_crossbn.experiments.scaling.interconnects import SYSTEMS
from chainer_crossbn.plotting import networks

_ACROSS = "---"


def fitted(model):
    """What was fitted, a line for each network.

    Args:
        model (Model): Fitted.

    Returns:
        str: The table.
    """
    head = ("network", "batch sizes", "c0 [ms]", "c1 [ms an image]", "all-reduces")
    head += ("latency [us]", "skew [us]", "relative skew", "last skew [ms]")
    return _table(head, [_fitted(*item) for item in model.networks.items()])


def checked(checks):
    """Predictions beside what was measured.

    Args:
        checks (list of Check): As :func:`.checks.check` returns them.

    Returns:
        str: The table.
    """
    head = ("network", "batch", "ranks", "fitted without", "predicted [ms]")
    head += ("measured [ms]", "error")
    return _table(
        head,
        [
            (
                networks.name(check.seen.network),
                check.seen.batch,
                check.seen.ranks,
                check.left_out,
                f"{check.predicted * 1e3:.1f}",
                f"{check.seen.time * 1e3:.1f}",
                f"{check.error:+.1%}",
            )
            for check in checks
        ],
    )


def extrapolated(found):
    """Milliseconds of an iteration, as ranges, a column for each number of ranks.

    Args:
        found (list of Extrapolated): As :func:`.extrapolation.extrapolate` returns it.

    Returns:
        str: The table.
    """
    lines = {}
    for each in found:
        key = each.system, networks.name(each.network), each.batch
        span = f"{each.low * 1e3:.4g}–{each.high * 1e3:.4g}"
        lines.setdefault(key, list(key)).append(span)
    ranks = (f"{n} ranks" for n in extrapolation.RANKS)
    return _table(("interconnect", "network", "batch", *ranks), lines.values())


def sources():
    """Latencies and bandwidths of the interconnects, and where they are from.

    Returns:
        str: The table.
    """
    links = {}
    for system in SYSTEMS:
        links.update(
            (link.name, link) for link in (system.inside, system.between) if link
        )
    lines = [
        (
            link.name,
            f"{link.hop[0]:g}–{link.hop[1]:g}",
            f"{link.bandwidth:g}",
            "; ".join(link.sources),
        )
        for link in links.values()
    ]
    lines += [
        (
            system.name,
            f"{system.overhead[0]:g}–{system.overhead[1]:g}",
            "",
            system.source,
        )
        for system in SYSTEMS
    ]
    return _table(("interconnect", "latency [us]", "bandwidth [GB/s]", "source"), lines)


def claim7(found):
    """The paper's ratio in each configuration of TSUBAME-KFC.

    Args:
        found (dict): As :func:`.synchronization.claim7` returns it.

    Returns:
        str: The table.
    """
    head = ("GPUs", "nodes", "dies", "all-reduces", "backward", "to normalBN")
    head += ("noBN to normalBN", "to noBN", "reached", "split [%]", "alone at most")
    head += ("times as long", "relative skew", "split as paper [%]")
    return _table(
        head,
        [
            (
                *(row[key] for key in ("gpus", "nodes", "dies")),
                *(row["n_allreduces"], row["backward"]),
                _span(row["ratio"]),
                _span(row["none_to_normal"]),
                _span(row["multigpu_to_none"]),
                "yes" if row["reached"] else "no",
                _parts(row["split"], lambda share: f"{share:.0%}".rstrip("%")),
                _parts(row["alone"], lambda ratio: f"{ratio:.2f}"),
                f"{row['factor']:.0f}",
                f"{row['skew']:.2f}",
                _parts(row["as_paper_split"], lambda s: f"{s[1]:.0%}".rstrip("%"))
                if row["as_paper_split"]
                else "no point",
            )
            for row in found["rows"]
        ],
    )


def assumed(found):
    """The parameters of claim 7, and how the ratio depends on each.

    Args:
        found (dict): As :func:`.synchronization.claim7` returns it.

    Returns:
        str: The table.
    """
    head = ("parameter", "low", "high", "ratio at low", "at high", "source")
    return _table(
        head,
        [
            (
                parameter["name"],
                f"{parameter['low']:.3g}",
                f"{parameter['high']:.3g}",
                f"{found['sensitivity'][parameter['name']][0]:.3f}",
                f"{found['sensitivity'][parameter['name']][-1]:.3f}",
                parameter["source"],
            )
            for parameter in found["parameters"]
        ],
    )


def _fitted(name, network):
    def ends(value, form):
        """Return a quantity at the smallest and at the largest batch size."""
        batches = network.batches[0], network.batches[-1]
        return "–".join(format(value(batch), form) for batch in batches)

    return (
        networks.name(name),
        ", ".join(map(str, network.batches)),
        f"{network.compute.fixed * 1e3:.2f}",
        f"{network.compute.per_image * 1e3:.3f}",
        network.collectives,
        f"{network.latency * 1e6:.1f}",
        ends(lambda batch: network.skew(batch) * 1e6, ".0f"),
        ends(network.relative_skew, ".2f"),
        ends(lambda batch: network.last_skew(batch) * 1e3, ".2f"),
    )


def _span(ratios):
    low, middle, high = ratios
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def _parts(values, form):
    return " / ".join(form(value) for value in values.values())


def _table(head, lines):
    rows = [[str(cell) for cell in row] for row in (head, *lines)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, [_ACROSS.ljust(width, "-") for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths))} |"
        for row in rows
    )
