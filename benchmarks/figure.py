"""Draw the results that compare.py stored.

python benchmarks/figure.py [DIR]
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from chainer_crossbn.plotting import style

NAMES = {
    "multigpu": ("this package", "#d62728", "o"),
    "ours": ("this package", "#d62728", "o"),
    "normal": ("this package, normalBN", "#ff9896", "s"),
    "profiled": ("this package, profiled", "#9467bd", "X"),
    "chainermn": ("ChainerMN", "#1f77b4", "^"),
    "chainermn-normal": ("ChainerMN, normalBN", "#aec7e8", "v"),
    "chainer": ("Chainer", "#1f77b4", "^"),
    "copy": ("copies of as many bytes", "#2ca02c", "x"),
    "torch": ("PyTorch", "#7f7f7f", "D"),
    "torch-last": ("PyTorch, channels last", "#c7c7c7", "P"),
}


def draw_bars(axes, groups):
    """Draw the times of some groups, each relative to ChainerMN's or Chainer's."""
    for place, found in enumerate(groups.values()):
        reference = found.get("chainermn", found.get("chainer"))[0]
        width = 0.8 / len(found)
        for i, (name, seconds) in enumerate(found.items()):
            median, low, high = (s / reference for s in seconds)
            axes.bar(
                place - 0.4 + (i + 0.5) * width,
                median,
                0.9 * width,
                color=NAMES[name][1],
                yerr=[[median - low], [high - median]],
                error_kw={"elinewidth": 0.8},
            )
    axes.set_xticks(range(len(groups)), [t.replace(", ", "\n") for t in groups])
    axes.set_ylabel("time, relative to Chainer's")
    axes.grid(axis="x", visible=False)


def draw_sweep(axes, title, sweep, images):
    """Draw images a second of all ranks; ``images`` makes them of a place."""
    for name in next(iter(sweep.values())):
        label, colour, marker = NAMES[name]
        places = [int(n) for n in sweep]
        speeds = [images(n) / sweep[str(n)][name][0] for n in places]
        axes.plot(places, speeds, marker=marker, color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(places, map(str, places))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xlabel(title)
    axes.set_ylabel("images a second, all ranks")


def draw_ablation(axes, ablation):
    """Draw how much longer a step takes with Chainer's own in one part's place."""
    for i, (batch, found) in enumerate(ablation.items()):
        ours = found["multigpu"][0]
        parts = [name for name in found if name != "multigpu"]
        axes.bar(
            [place - 0.2 + 0.4 * i for place in range(len(parts))],
            [found[name][0] / ours for name in parts],
            0.36,
            color=("#d62728", "#ff9896")[i],
            label=f"{batch} images a rank",
        )
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(
        range(len(parts)),
        [p.split("-")[1] for p in parts],
        rotation=30,
        ha="right",
    )
    axes.set_ylabel("time of a step, without / with")
    axes.set_title("without a part of this package")
    axes.grid(axis="x", visible=False)
    axes.legend()


def draw(results, path):
    """Draw the results of compare.py, all parts of them, into a file."""
    with style.applied():
        figure, grid = plt.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
        (bars, ranks), (batches, ablation) = grid
        draw_bars(bars, results["groups"])
        sweeps = iter(results["sweeps"].items())
        draw_sweep(ranks, *next(sweeps), lambda n: 16 * n)
        draw_sweep(batches, *next(sweeps), lambda n: 2 * n)
        draw_ablation(ablation, results["ablation"])
        used = {name for found in results["groups"].values() for name in found}
        labels = {NAMES[n][0]: NAMES[n][1] for n in NAMES if n in used}
        handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in labels.values()]
        figure.legend(handles, labels, ncols=4, loc="outside lower center")
        machine = results["machine"]
        figure.suptitle(
            f"VGG16 on {machine['processor']} ({machine['vector']}), "
            f"{machine['cores']} cores, one thread a rank"
        )
        figure.savefig(path, dpi=110)
        plt.close(figure)


def table(results):
    """Return the pairs as lines of Markdown: times or memory, and their ratios."""
    lines = [
        "| | this package | other | ratio | 95 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for title, found in results["pairs"].items():
        scale, unit = {"s": (1e3, "ms"), "bytes": (1e-6, "MB")}[found["unit"]]
        ours, theirs = (_short(found[k] * scale, unit) for k in ("ours", "theirs"))
        low, high = found["interval"]
        lines.append(
            f"| {title} | {ours} | {theirs} | {found['ratio']:.2f} "
            f"| {low:.2f}–{high:.2f} |"
        )
    return lines


def _short(value, unit):
    return f"{value:.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    folder = folder or Path(__file__).resolve().parent / "results"
    stored = json.loads((folder / "compare.json").read_text())
    draw(stored, folder / "compare.png")
    print("\n".join(table(stored)))
