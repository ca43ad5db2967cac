"""Break the package on purpose, in one way after the other: do the tests notice?

    python tests/mutations.py
    python tests/mutations.py "no epsilon" "swapped colors"

Each mutation is made in a temporary copy of the source tree, and the tests that should
notice run there until one fails. Prints what was noticed. The exit status is 1 if more
than one mutation was not.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "chainer_crossbn"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "result", "runs", "*.egg-info")
MISSES_ALLOWED = 1
# Exit statuses of pytest.
PASSED, FAILED = 0, 1


class Mutation(NamedTuple):
    """A change that makes the package wrong.

    Attributes:
        name (str): What is wrong after it.
        file (str): The module that changes, relative to the package.
        changes (dict): Text in the module to the text that replaces it.
        tests (tuple of str): Test files that should notice.
    """

    name: str
    file: str
    changes: dict[str, str]
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "biased running variance",
        "kernels/normalization/array_api.py",
        {"return count / max(count - 1, 1)": "return 1.0"},
        ("test_batch_normalization.py", "test_mpi_exactness.py"),
    ),
    Mutation(
        "no epsilon",
        "kernels/normalization/numba.py",
        {"return 1 / (var + eps) ** 0.5": "return 1 / var**0.5"},
        ("test_batch_normalization.py", "test_mpi_exactness.py"),
    ),
    Mutation(
        "means of unequal local batches have equal weights",
        "kernels/normalization/numba.py",
        {"b[k] = (n * a[k] + m * b[k]) / total": "b[k] = (a[k] + b[k]) / 2"},
        ("test_mpi_exactness.py",),
    ),
    Mutation(
        "no mean term in the gradient",
        "kernels/normalization/numba.py",
        {
            "mean_gy, slope = array_api.slopes(inv_std, total, count)": (
                "_, slope = array_api.slopes(inv_std, total, count)\n"
                "    mean_gy = numpy.zeros_like(slope)"
            )
        },
        ("test_batch_normalization.py", "test_mpi_exactness.py"),
    ),
    Mutation(
        "layers are not told apart in the check of their order",
        "functions/cross_batch_normalization.py",
        {
            'f"{self.layer} forward"': '"forward"',
            'f"{self._name} backward"': '"backward"',
        },
        ("test_mpi_order.py",),
    ),
    Mutation(
        "learning rate shifts an epoch late",
        "training/extensions/learning_rate.py",
        {
            "(epoch // every if": "((epoch - 1) // every if",
        },
        ("test_train_later.py",),
    ),
    Mutation(
        "a run goes on with other flags",
        "commands/train/resume.py",
        {
            "        _compare(path, name, before, value)\n": "        pass\n",
        },
        ("test_model_flags.py", "test_mpi_restarts.py"),
    ),
    Mutation(
        "swapped colors",
        "plotting/networks.py",
        {
            '"normalBN", "#0072B2"': '"normalBN", "#D55E00"',
            '"multigpuBN", "#D55E00"': '"multigpuBN", "#0072B2"',
        },
        ("test_plotting.py",),
    ),
    Mutation(
        "all ranks get the images of the first",
        "training/iterators.py",
        {"self._first_rank = rank * virtual_ranks": "self._first_rank = 0"},
        ("test_mpi_training.py",),
    ),
    Mutation(
        "images are not scaled",
        "training/updaters.py",
        {" / dtype.type(255)": ""},
        ("test_mpi_training.py",),
    ),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [mutation.name for mutation in MUTATIONS]
    parser.add_argument(
        "names", nargs="*", metavar="MUTATION", help=f"of {', '.join(names)}"
    )
    args = parser.parse_args()
    if unknown := {*args.names} - {*names}:
        parser.error(f"no such mutation: {', '.join(sorted(unknown))}")
    chosen = [m for m in MUTATIONS if m.name in (args.names or names)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        for mutation in chosen:
            started = time.monotonic()
            test = noticing_test(tree, mutation)
            seconds = time.monotonic() - started
            missed += test is None
            result = f"noticed by {test}" if test else "NOT NOTICED"
            print(f"{mutation.name}: {result} ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} mutations were noticed")
    return int(missed > MISSES_ALLOWED)


def noticing_test(tree, mutation):
    """Return the name of the first test that fails, ``None`` if all pass."""
    path = tree / PACKAGE / mutation.file
    original = path.read_text("utf-8")
    mutated = original
    for text, replacement in mutation.changes.items():
        if text not in original:
            raise SystemExit(f"{mutation.name}: {path.name} does not have {text!r}")
        mutated = mutated.replace(text, replacement)
    path.write_text(mutated, "utf-8")
    try:
        return first_failure(tree, mutation.tests)
    finally:
        path.write_text(original, "utf-8")


def first_failure(tree, files):
    options = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=no")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(f"tests/{f}" for f in files)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == PASSED:
        return None
    failure = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    if done.returncode != FAILED or failure is None:
        raise SystemExit(f"pytest did not run:\n{done.stdout}")
    return failure[1]


if __name__ == "__main__":
    sys.exit(main())
