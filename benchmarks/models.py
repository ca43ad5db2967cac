"""Time a step of each network beside ChainerMN and PyTorch; store and print the ratios.

    python benchmarks/models.py [--rounds N] [--only NAME]

Two ranks with one thread each, networks at full width. Measured as in compare.py, which
includes VGG16.
"""

import argparse
import json

import compare

# Network -> images per rank, and the target ratios to ChainerMN and to PyTorch.
MODELS = {
    "resnet20": (64, 1 / 3, 1 / 1.2),
    "resnet110": (16, 1 / 3, 1 / 1.2),
    "resnet50": (4, 1 / 3, 1),
    "googlenet": (4, 1 / 3, 1),
    "alexnet": (8, 1 / 3, 1),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="rounds per network")
    parser.add_argument("--only", default="", help="networks whose name contains this")
    args = parser.parse_args()
    results = {"machine": compare.machine(), "models": {}}
    print(
        f"{'milliseconds of a step':32}{'ours':>9}{'theirs':>9}{'ratio':>8}  interval"
    )
    for name, (batch, *targets) in MODELS.items():
        if args.only not in name:
            continue
        group = compare.Group(
            *("step", (batch, 0, 0, name), 2),
            (compare.OURS, "chainermn", *compare.TORCH),
        )
        found = compare.measure(group, args.rounds)
        model = results["models"][name] = {
            "images": batch,
            "steps": compare.summary(found),
        }
        theirs = (("ChainerMN", ("chainermn",)), ("PyTorch", compare.TORCH))
        for (title, them), target in zip(theirs, targets):
            names = f"{name}, to {title}", name, compare.OURS
            pair = compare.Pair(*names, them, "s", target)
            ratio = model[title] = compare.compare(pair, found)
            low, high = ratio["interval"]
            print(
                f"{pair.title:32}{1e3 * ratio['ours']:9.1f}{1e3 * ratio['theirs']:9.1f}"
                f"{ratio['ratio']:8.3f}  {low:.3f}-{high:.3f}",
                flush=True,
            )
    if not args.only:
        path = compare.RESULTS / "models.json"
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
