"""What the model says, as Markdown and as data."""

from typing import NamedTuple

from chainer_crossbn.experiments.scaling import extrapolation, interconnects, tables
from chainer_crossbn.plotting.files import SIGNATURE

_NO_CHECK = (
    "No run was left out of the fit: that takes three batch sizes on 2 ranks, or a "
    "third number of ranks."
)
_NO_CLAIM = "No network with all-reduces was fitted, so there is no skew to start from."


class Findings(NamedTuple):
    """What the model says.

    Attributes:
        scale (Scale): What the runs share.
        model (Model): Fitted to them.
        checks (list of Check): How well it predicts.
        extrapolated (list of Extrapolated): What it says of more ranks.
        claim7 (dict or None): As :func:`.synchronization.claim7` returns it.
    """

    scale: tuple
    model: tuple
    checks: list
    extrapolated: list
    claim7: dict


def text(findings):
    """Write findings in words and tables.

    Args:
        findings (Findings): What the model says.

    Returns:
        str: Markdown.
    """
    scale, model, checks, extrapolated, claim = findings
    parts = [
        f"<!-- {SIGNATURE.decode()}: written by chainer_crossbn.scaling -->",
        "## How it scales",
        f"Fitted to {scale.words}; BLAS threads of a rank: {model.threads}.",
        "### Fit",
        tables.fitted(model),
        _fit_notes(model),
        "### Check",
        tables.checked(checks) if checks else _NO_CHECK,
    ]
    if extrapolated:
        parts += [
            f"### Extrapolation: {extrapolation.LABEL}",
            "Milliseconds of an iteration, from the lowest latencies, peak bandwidth "
            "and normal skew to the highest latencies, half of the bandwidth (an "
            "assumption) and skew with exponential tails. A rank computes as here. A "
            "node has one adapter." + _beyond(model),
            tables.extrapolated(extrapolated),
            tables.sources(),
        ]
    parts += ["### Claim 7 on TSUBAME-KFC: the time comes from synchronizing"]
    if claim:
        parts += [
            f"Verdict in the model: **{claim['verdict']}**. The machine itself was not "
            "measured here.",
            "\n".join(f"- {line}" for line in claim["found"]),
            "Ratios of multigpuBN's time, in the middle of all ranges (and over them); "
            "*split*: of the extra time into arithmetic / transfer / waiting; *alone*: "
            "the ratio that each of these gives at most; for the paper's ratio, with "
            "all else in the middle, *times as long*: an all-reduce would be, if no "
            "rank waited, and *relative skew*: what it would be; *as paper*: where "
            "both of the paper's ratios come out.",
            tables.claim7(claim),
            "What was assumed; times in seconds, and the ratio with one at its low and "
            "its high end and all others in the middle (8 GPUs on a node, two exact "
            "all-reduces):",
            tables.assumed(claim),
        ]
    else:
        parts.append(_NO_CLAIM)
    return "\n\n".join(parts) + "\n"


def data(findings):
    """Return the same as :func:`text` does, as what JSON takes; times in seconds."""
    scale, model, checks, extrapolated, claim = findings
    sharing = model.oversubscription
    return {
        "program": SIGNATURE.decode(),
        "scale": scale._asdict(),
        "model": {
            "threads": model.threads,
            "bandwidth": model.bandwidth,
            "networks": {
                name: {
                    **found._asdict(),
                    "compute": found.compute._asdict(),
                    "skew": found.skew._asdict(),
                    "last_skew": found.last_skew._asdict(),
                }
                for name, found in model.networks.items()
            },
            "oversubscription": sharing and sharing._asdict(),
        },
        "checks": [
            {
                **check.seen._asdict(),
                "left_out": check.left_out,
                "predicted": check.predicted,
                "measured": check.seen.time,
                "error": check.error,
            }
            for check in checks
        ],
        "extrapolation": {
            "label": extrapolation.LABEL,
            "rows": [each._asdict() for each in extrapolated],
            "systems": [
                {
                    **system._asdict(),
                    "inside": system.inside and system.inside._asdict(),
                    "between": system.between._asdict(),
                }
                for system in interconnects.SYSTEMS
            ],
        },
        "claim7": claim,
    }


def _fit_notes(model):
    lines = [
        "Times are c0 + c1 b; latency: of an all-reduce of a normalization on 2 ranks; "
        "skew: standard deviation of a rank's computing between two of these, last "
        "skew: before the all-reduce of the gradients, from the smallest to the "
        "largest batch size; relative: to the mean. The gradients' all-reduce moves "
        f"{model.bandwidth / 1e9:.2f} GB/s."
    ]
    if model.oversubscription:
        ranks, factor, turn = model.oversubscription
        lines.append(
            f"On {ranks} ranks, which share {model.cores} cores, computing takes "
            f"{factor:.2f} times as long as their turns would, and an all-reduce "
            f"{turn * 1e6:.0f} us for each rank of a core."
        )
    return "\n".join(lines)


def _beyond(model):
    largest = max(max(found.batches) for found in model.networks.values())
    beyond = [b for b in extrapolation.BATCHES if b > largest]
    if not beyond:
        return ""
    return f" Batch size {beyond[0]} is beyond the largest one fitted, {largest}."
