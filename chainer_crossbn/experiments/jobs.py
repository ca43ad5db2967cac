"""From an experiment to the command lines, and the job scripts, of its runs."""

import itertools
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from chainer_crossbn.experiments.definitions import (
    Experiment,
    Options,
    Scale,
    Setting,
)
from chainer_crossbn.experiments.rules import Rule

# The first epoch warms up, and is left out.
_SCALING_EPOCHS = 3
_LEAST_IMAGES = 20

# Options that follow from others, and are no part of a run's name.
_UNNAMED = ("width", "epoch", "lr-step", "dataset", "test-size")
_WITH_FC_UNITS = (None, "vgg16", "alexnet")

_SCRIPT = Path(__file__).resolve().parents[2] / "train_cifar.py"

# Scheduler -> the head of a script. For Altair Grid Engine, sites name resources (-l,
# -pe) in their own ways. Output goes to the directory of submission, which exists.
_HEADS = {
    "slurm": """\
#!/bin/sh
#SBATCH --job-name={name}
#SBATCH --ntasks={ranks}
#SBATCH --output={name}.output
""",
    "age": """\
#!/bin/sh
#$ -N {name}
#$ -cwd
#$ -j y
#$ -o {name}.output
""",
}
SCHEDULERS = tuple(_HEADS)


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        name (str): Its directory, relative to the one that contains all runs.
        setting (Setting): What it trains.
        ranks (int): Number of ranks.
        flags (tuple): Pairs of a flag, without its dashes, and its value: all that
            distinguishes the run, but not the places of its directory and data.
        seed (int): Seed.
        timed (bool): Whether its time is measured; then each rank is a process. In
            other runs one process computes for all ranks, with one thread.
        profiled (bool): Whether it writes where its time goes.
        ends_early (bool): Whether it ends when its loss is not finite, which counts as
            a result.
    """

    name: str
    setting: Setting
    ranks: int
    flags: Options
    seed: int
    timed: bool = False
    profiled: bool = False
    ends_early: bool = False

    def directory(self, out: str) -> Path:
        """Return the run directory below ``out``."""
        return Path(out, self.name)

    def command(
        self, out: str, data: Optional[str] = None, resumable: bool = False
    ) -> list[str]:
        """Return the command line, from ``mpiexec`` on.

        Args:
            out (str): Directory that contains all runs.
            data (str or None): Value of ``--data``.
            resumable (bool): Whether it takes snapshots, and continues a run that was
                interrupted.
        """
        processes = self.ranks if self.timed else 1
        command = [_mpiexec(), "-n", str(processes), sys.executable, _script()]
        flags = [*self.flags]
        if not self.timed:
            flags += [("virtual-ranks", self.ranks), ("threads", 1)]
        if data is not None and ("dataset", "synthetic") not in flags:
            flags.append(("data", data))
        directory = self.directory(out)
        flags += [("out", directory.parent), ("name", directory.name)]
        for flag, value in flags:
            command += [f"--{flag}", str(value)]
        command.append("--no-model")
        command += ["--resume", "auto"] if resumable else ["--snapshot-interval", "0"]
        if not self.ends_early:
            command.append("--allow-nan")  # that a network diverges is a result, too
        return [*command, "--profile"] if self.profiled else command

    def shell_command(self, out: str, data: Optional[str] = None) -> str:
        """Return the command line as a shell reads it; see :meth:`command`."""
        return " ".join(map(shlex.quote, self.command(out, data)))

    def script(self, out: str, data: Optional[str], scheduler: str) -> str:
        """Return a job script, which starts with ``#!`` and can be submitted again.

        Args:
            out (str): Directory that contains all runs.
            data (str or None): Value of ``--data``.
            scheduler (str): One of :data:`SCHEDULERS`: Slurm, Altair Grid Engine.
        """
        name = self.name.replace("/", "-")
        head = _HEADS[scheduler].format(name=name, ranks=self.ranks)
        command = self.command(out, data, resumable=True)
        return f"{head}{' '.join(map(shlex.quote, command))}\n"


def planned(
    experiments: Sequence[Experiment], scale: Scale, rules: Iterable[Rule], seeds: int
) -> list[Job]:
    """Return the runs of some experiments, each once, in the order of running.

    All networks of a seed come before the next seed, so that a machine that gets
    slower or faster does so for all networks. All runs of a rule come before the next
    rule. Rules share runs where they agree, and timed runs, which use the first rule.

    Args:
        experiments (sequence of Experiment): The experiments.
        scale (Scale): Their scale.
        rules (iterable of Rule): Initial weights and learning rates.
        seeds (int): Number of seeds of repeated experiments.
    """
    plan = {}
    for rule, seed in itertools.product(rules, range(seeds)):
        for experiment in experiments:
            if seed and not experiment.repeated:
                continue
            for setting in experiment.settings:
                # The name of a timed run does not have the rate.
                job = experiment_job(setting, scale, rule, seed)
                plan.setdefault(job.name, job)
    return list(plan.values())


def experiment_job(setting: Setting, scale: Scale, rule: Rule, seed: int) -> Job:
    """Return the run of a setting of an experiment."""
    rate = setting.rate * rule.rate(setting.batch * scale.ranks)
    name = f"runs/{setting_name(setting)}-{rule.init}-lr{rate:.4g}-s{seed}"
    if setting.timed:
        name = f"times/{setting_name(setting)}-s{seed}"
    return Job(
        name=name,
        setting=setting,
        ranks=scale.ranks,
        flags=_flags(
            setting,
            scale,
            epochs=scale.timed_epochs if setting.timed else scale.epochs,
            init=rule.init,
            rate=rate,
            seed=seed,
        ),
        seed=seed,
        timed=setting.timed,
        profiled=setting.timed and seed == 0,  # profiles are large
    )


def search_job(setting: Setting, scale: Scale, epochs: int, rule: Rule) -> Job:
    """Return the run of a setting under a rule that the search tries."""
    rate = rule.rate(setting.batch * scale.ranks)
    return Job(
        name=f"search/{setting_name(setting)}-{rule.init}-lr{rate:g}",
        setting=setting,
        ranks=scale.ranks,
        flags=_flags(setting, scale, epochs=epochs, init=rule.init, rate=rate),
        seed=0,
    )


def map_job(bn: str, batch: int, init: str, rate: float, scale: Scale) -> Job:
    """Return a run of the map of learning rates.

    Args:
        bn (str): Value of ``--bn``.
        batch (int): Mini-batch size per rank.
        init (str): Value of ``--init``.
        rate (float): Learning rate.
        scale (Scale): Its scale.
    """
    size = scale.map
    sizes = {"train_size": size.train_size, "test_size": size.test_size}
    setting = Setting(bn, batch)
    scale = replace(scale, **sizes, lr_step=size.lr_step)
    return Job(
        name=f"map/{bn}-b{batch}-{init}-lr{rate:g}",
        setting=setting,
        ranks=scale.ranks,
        flags=_flags(setting, scale, epochs=size.epochs, init=init, rate=rate),
        seed=0,
        ends_early=True,
    )


def scaling_job(setting: Setting, scale: Scale, ranks: int) -> Job:
    """Return a short run that measures where the time of an iteration goes."""
    steps = max(12, 240 // setting.batch)  # of an epoch; small batches vary more
    flags = {
        "bn": setting.bn,
        "batchsize": setting.batch,
        "width": scale.width,
        "fc-units": scale.fc_units,
        "epoch": _SCALING_EPOCHS,
        "seed": 0,
        "threads": 1,
        "dataset": "synthetic",
        "train-size": steps * setting.batch * ranks,
        "test-size": _LEAST_IMAGES,
        "eval-train": _LEAST_IMAGES,
    }
    return Job(
        name=f"scaling/{setting_name(setting)}-r{ranks}",
        setting=setting,
        ranks=ranks,
        flags=tuple(flags.items()),
        seed=0,
        timed=True,
        profiled=True,
    )


def setting_name(setting: Setting) -> str:
    """Name a setting, such as ``"multigpu-front6-rest-none-b4"``."""
    options = dict(setting.options)
    parts = [options.pop("model")] if "model" in options else []
    parts.append(setting.bn)
    for flag, value in options.items():
        if flag in _UNNAMED:
            continue
        text = str(value).replace(":", "")
        forms = {
            "bn-layers": text,
            "train-size": f"n{text}",
            "image-size": f"{text}px",
        }
        parts.append(forms.get(flag) or f"{flag.split('-')[1]}-{text}")
    return "-".join([*parts, f"b{setting.batch}"])


def _flags(setting, scale, epochs, init, rate, seed=0):
    options = dict(setting.options)
    has_fc_units = options.get("model") in _WITH_FC_UNITS
    flags = {
        "bn": setting.bn,
        "batchsize": setting.batch,
        "width": scale.width,
        "fc-units": scale.fc_units if has_fc_units else None,
        "init": init,
        "lr": float(f"{rate:.4g}"),
        "lr-step": scale.lr_step,
        "epoch": epochs,
        "seed": seed,
        "dataset": scale.dataset,
        "train-size": scale.train_size,
        "test-size": scale.test_size,
        **options,
    }
    return tuple((flag, value) for flag, value in flags.items() if value is not None)


def _mpiexec():
    """Return the launcher of this interpreter's MPI, or else the one on the PATH."""
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec") or "mpiexec"


def _script():
    """Return the training script, relative to the working directory if it is below."""
    here = Path.cwd()
    return os.fspath(_SCRIPT.relative_to(here) if here in _SCRIPT.parents else _SCRIPT)
