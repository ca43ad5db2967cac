"""From an experiment to the command lines of its runs."""

import itertools
import os
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from chainer_crossbn.experiments import definitions

# The first epoch warms up, and is left out.
_TIMED_EPOCHS = 3
_LEAST_IMAGES = 20

# What goes with other options, and does not tell runs apart.
_UNNAMED = ("width", "epoch", "lr-step", "dataset", "test-size")
_WITH_FC_UNITS = (None, "vgg16", "alexnet")

_SCRIPT = Path(__file__).resolve().parents[2] / "train_cifar.py"


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        name (str): Its directory, relative to the one that gathers all.
        setting (Setting): What it trains.
        ranks (int): MPI ranks.
        flags (tuple): Pairs of a flag, less its dashes, and its value: all that
            distinguishes the run, neither its place nor that of the data.
        seed (int): Seed.
        timed (bool): Whether its times count: each rank is a process then. Of others
            one process computes for all ranks, with one thread.
        profiled (bool): Whether to write where its time goes.
        ends_early (bool): Whether it ends when its loss is not finite, which counts as
            a result.
    """

    name: str
    setting: definitions.Setting
    ranks: int
    flags: tuple
    seed: int
    timed: bool = False
    profiled: bool = False
    ends_early: bool = False

    def directory(self, out):
        """Return the run directory below ``out``."""
        return Path(out, self.name)

    def command(self, out, data=None):
        """Return the command line.

        Args:
            out (str): Directory that gathers all.
            data (str or None): Value of ``--data``.

        Returns:
            list of str: From ``mpiexec`` on.
        """
        processes = self.ranks if self.timed else 1
        words = [_mpiexec(), "-n", str(processes), sys.executable, _script()]
        flags = [*self.flags]
        if not self.timed:
            flags += [("virtual-ranks", self.ranks), ("threads", 1)]
        if data is not None and ("dataset", "synthetic") not in flags:
            flags.append(("data", data))
        directory = self.directory(out)
        flags += [("out", directory.parent), ("name", directory.name)]
        for flag, value in flags:
            words += [f"--{flag}", str(value)]
        words += ["--no-model", "--snapshot-interval", "0"]
        if not self.ends_early:
            words.append("--allow-nan")  # that a network diverges is a result, too
        return [*words, "--profile"] if self.profiled else words


def of(setting, scale, rule, seed):
    """Return the run of a setting.

    Args:
        setting (Setting): What to train.
        scale (Scale): How large.
        rule (Rule): Initial weights and learning rate.
        seed (int): Seed.
    """
    rate = setting.rate * rule.rate(setting.batch * scale.ranks)
    if not setting.timed:
        name = f"runs/{words(setting)}-{rule.init}-lr{rate:.4g}-s{seed}"
        return _job(name, setting, scale, scale.epochs, rule.init, rate, seed)
    name = f"times/{words(setting)}-s{seed}"
    job = _job(name, setting, scale, scale.timed_epochs, rule.init, rate, seed)
    # Once a network and batch size, as profiles are large.
    return replace(job, timed=True, profiled=seed == 0)


def of_search(setting, scale, epochs, rule):
    """Return the run of a setting under a rule on trial."""
    rate = rule.rate(setting.batch * scale.ranks)
    name = f"search/{words(setting)}-{rule.init}-lr{rate:g}"
    return _job(name, setting, scale, epochs, rule.init, rate, seed=0)


def of_map(bn, batch, init, rate, scale):
    """Return a run of the map of learning rates.

    Args:
        bn (str): Value of ``--bn``.
        batch (int): Mini-batch size per rank.
        init (str): Value of ``--init``.
        rate (float): Learning rate.
        scale (Scale): How large.
    """
    options = (
        ("train-size", scale.map.train_size),
        ("test-size", scale.map.test_size),
        ("lr-step", scale.map.lr_step),
    )
    setting = definitions.Setting(bn, batch, options)
    name = f"map/{bn}-b{batch}-{init}-lr{rate:g}"
    job = _job(name, setting, scale, scale.map.epochs, init, rate, seed=0)
    return replace(job, ends_early=True)


def of_scaling(setting, scale, ranks):
    """Return a short run that tells where the time of an iteration goes."""
    steps = max(12, 240 // setting.batch)  # of an epoch; small ones scatter more
    flags = {
        "bn": setting.bn,
        "batchsize": setting.batch,
        "width": scale.width,
        "fc-units": scale.fc_units,
        "epoch": _TIMED_EPOCHS,
        "seed": 0,
        "threads": 1,
        "dataset": "synthetic",
        "train-size": steps * setting.batch * ranks,
        "test-size": _LEAST_IMAGES,
        "eval-train": _LEAST_IMAGES,
    }
    name = f"scaling/{words(setting)}-r{ranks}"
    flags = tuple(flags.items())
    return Job(name, setting, ranks, flags, seed=0, timed=True, profiled=True)


def words(setting):
    """Name a setting, such as ``"multigpu-front6-rest-none-b4"``."""
    options = dict(setting.options)
    told = [options.pop("model")] if "model" in options else []
    told.append(setting.bn)
    for flag, value in options.items():
        if flag in _UNNAMED:
            continue
        text = str(value).replace(":", "")
        forms = {
            "bn-layers": text,
            "train-size": f"n{text}",
            "image-size": f"{text}px",
        }
        told.append(forms.get(flag) or f"{flag.split('-')[1]}-{text}")
    told.append(f"b{setting.batch}")
    return "-".join(told)


def planned(experiments, scale, rules, seeds):
    """Return the runs of some experiments, each once, seed by seed.

    All networks of a seed come before the next seed, so that a machine that gets
    slower or faster does so for all networks alike. All runs of a rule come before the
    next rule. Runs that rules share are made once. So are those whose times count,
    under the first rule.

    Args:
        experiments (sequence of Experiment): What to run.
        scale (Scale): How large.
        rules (iterable of Rule): Initial weights and learning rates.
        seeds (int): How many seeds repeated experiments have.

    Returns:
        list of Job: In the order in which they are to run.
    """
    found = {}
    for rule, seed in itertools.product(rules, range(seeds)):
        for experiment in experiments:
            if seed and not experiment.repeated:
                continue
            for setting in experiment.settings:
                # The name of a run whose times count does not have the rate.
                job = of(setting, scale, rule, seed)
                found.setdefault(job.name, job)
    return list(found.values())


def quoted(command):
    """Return a command line as a shell reads it."""
    return " ".join(shlex.quote(word) for word in command)


def _job(name, setting, scale, epochs, init, rate, seed):
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
    kept = tuple((flag, value) for flag, value in flags.items() if value is not None)
    return Job(name, setting, scale.ranks, kept, seed)


def _mpiexec():
    """The launcher of this interpreter's MPI, else the one on the PATH."""
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec") or "mpiexec"


def _script():
    """The script, relative to where we are if it lies below."""
    here = Path.cwd()
    return os.fspath(_SCRIPT.relative_to(here) if here in _SCRIPT.parents else _SCRIPT)
