"""The report of the scaling command, as Markdown and as JSON."""

import json
from pathlib import Path
from typing import Optional

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments.scaling import claim7, observations, skew, tsubame_kfc
from chainer_crossbn.experiments.scaling.claim7 import Configuration
from chainer_crossbn.experiments.scaling.observations import Observation
from chainer_crossbn.experiments.scaling.tsubame_kfc import Parameter
from chainer_crossbn.plotting import files, networks, style
from chainer_crossbn.text_tables import markdown

NAME = "scaling"
_NO_SKEW = (
    "The claim is not evaluated. This takes profiled runs of a network that has "
    "all-reduces, on 2 ranks with a core each, at two batch sizes."
)


def write(
    paths: list[str], folder: Path
) -> tuple[str, list[Path], list[tuple[Path, str]]]:
    """Evaluate profiled runs, and write ``scaling.md`` and ``scaling.json``.

    Args:
        paths (list of str): Run directories, or directories above them.
        folder (pathlib.Path): Directory of the files; made if need be.

    Returns:
        tuple: The text of ``scaling.md``; the two files; and a list of (path, reason)
        for runs that were left out.

    Raises:
        UsageError: If there is no profiled run, if they are not of one scale, or if the
            files can't be written.
        FileNotFoundError: If a path does not exist.
    """
    scale, observed, skipped = observations.read(paths)
    relative_skew = skew.relative_skew(observed)
    claim = None
    sections = [
        f"<!-- {files.SIGNATURE.decode()}: written by chainer_crossbn.scaling -->",
        "## How it scales",
        f"Mean iterations in milliseconds; {scale}. More ranks than cores share them.",
        table(observed),
        "### Claim 7 on TSUBAME-KFC: the time comes from synchronizing",
    ]
    if relative_skew is None:
        sections.append(_NO_SKEW)
    else:
        parameters = tsubame_kfc.parameters(relative_skew)
        configurations = claim7.evaluate(parameters)
        claim = {
            "verdict": claim7.verdict(configurations),
            "deciding": claim7.deciding(configurations),
            "found": claim7.sentences(configurations, relative_skew),
            "parameters": [parameter._asdict() for parameter in parameters],
            "configurations": [_flat(each) for each in configurations],
        }
        sections += _claim_sections(claim, configurations, parameters)
    text = "\n\n".join(sections) + "\n"
    content = {
        "program": files.SIGNATURE.decode(),
        "scale": scale,
        "observations": [each._asdict() for each in observed],
        "claim7": claim,
    }
    texts = [(f"{NAME}.md", text), (f"{NAME}.json", _json(content))]
    try:
        written = files.write([], folder, texts=texts)
    except OSError as error:
        raise UsageError(
            f"can't write into {folder}: {error.strerror or error}; choose another "
            "--out"
        ) from None
    return text, [path for (path,) in written], skipped


def table(observed: list[Observation]) -> str:
    """Return a table of the times of iterations in milliseconds, by ranks.

    Args:
        observed (list of Observation): Measurements; of several with the same network,
            batch size and ranks the last is shown.
    """
    ranks = sorted({each.ranks for each in observed})
    times = {(each.network, each.batch, each.ranks): each.time for each in observed}
    rows = []
    for network, batch in dict.fromkeys(
        (each.network, each.batch) for each in observed
    ):
        cells = [times.get((network, batch, n)) for n in ranks]
        shown = ["–" if time is None else f"{1e3 * time:.1f}" for time in cells]
        rows.append((networks.name(network), batch, *shown))
    head = ("network", "batch", *(style.setting("ranks", n) for n in ranks))
    return markdown(head, rows)


def _claim_sections(
    claim: dict,
    configurations: list[Configuration],
    parameters: tuple[Parameter, ...],
) -> list[str]:
    return [
        f"Verdict in the model: **{claim['verdict']}**. The machine itself was not "
        "measured here.",
        "\n".join(f"- {sentence}" for sentence in claim["found"]),
        "Times of multigpuBN and noBN relative to normalBN, in the middle of all "
        "ranges (and over them). *Alone*: the highest ratio of multigpuBN that "
        "arithmetic, transfer and waiting give alone. For the paper's ratio, with all "
        "else in the middle, an all-reduce would take *times as long* if no rank "
        "waited, or the *relative skew* would have the value shown. *Transfer and "
        "waiting*: their share of the extra time where both of the paper's ratios come "
        "out.",
        _configuration_table(configurations),
        "The assumptions; times in seconds:",
        markdown(
            ("parameter", "low", "high", "source"),
            [
                (each.name, f"{each.low:.3g}", f"{each.high:.3g}", each.source)
                for each in parameters
            ],
        ),
    ]


def _configuration_table(configurations: list[Configuration]) -> str:
    head = ("GPUs", "nodes", "dies", "all-reduces", "backward", "multigpuBN", "noBN")
    head += ("alone", "times as long", "relative skew", "transfer and waiting")
    return markdown(
        head,
        [
            (
                *each.layout,
                *each.variant,
                _range(each.ratio),
                _range(each.none_to_normal),
                " / ".join(f"{ratio:.2f}" for ratio in each.alone.values()),
                f"{each.needed_factor:.0f}",
                f"{each.needed_skew:.2f}",
                _shares(each.matching_shares),
            )
            for each in configurations
        ],
    )


def _range(ratios: tuple[float, float, float]) -> str:
    low, middle, high = ratios
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def _shares(ends: Optional[tuple[float, float]]) -> str:
    return f"{ends[0]:.0%}–{ends[1]:.0%}" if ends else "no point"


def _flat(configuration: Configuration) -> dict:
    content = configuration._asdict()
    layout, variant = content.pop("layout"), content.pop("variant")
    return {**layout._asdict(), **variant._asdict(), **content}


def _json(content: dict) -> str:
    """Return JSON without the digits in which BLAS differs between machines."""
    content = json.loads(
        json.dumps(content), parse_float=lambda number: float(f"{float(number):.12g}")
    )
    return json.dumps(content, indent=1) + "\n"
