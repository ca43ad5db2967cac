"""From an experiment to the command lines of its runs."""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from chainer_crossbn.experiments import definitions

# The first epoch warms up, and is left out.
_TIMED_EPOCHS = 3
_LEAST_IMAGES = 20

# What goes with other options, and does not tell runs apart.
_UNNAMED = ("width", "epoch", "lr-step", "dataset", "test-size")
_NOT_OF_PAPER = {"model", "train-size", "image-size"}
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
        profiled (bool): Whether to write where its time goes.
    """

    name: str
    setting: definitions.Setting
    ranks: int
    flags: tuple
    seed: int
    profiled: bool = False

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
        words = [_mpiexec(), "-n", str(self.ranks), sys.executable, _script()]
        flags = [*self.flags]
        if data is not None and ("dataset", "synthetic") not in flags:
            flags.append(("data", data))
        directory = self.directory(out)
        flags += [("out", directory.parent), ("name", directory.name)]
        for flag, value in flags:
            words += [f"--{flag}", str(value)]
        # That a network diverges is a result, too.
        words += ["--no-model", "--snapshot-interval", "0", "--allow-nan"]
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
    name = f"{words(setting)}-s{seed}"
    # Once a network and batch size: profiles are large, and take up to a fiftieth.
    of_paper = not _NOT_OF_PAPER & {flag for flag, _ in setting.options}
    profiled = seed == 0 and setting.rate == 1 and of_paper
    return _job(name, setting, scale, scale.epochs, rule.init, rate, seed, profiled)


def of_search(setting, scale, epochs, rule):
    """Return the run of a setting under a rule on trial."""
    rate = rule.rate(setting.batch * scale.ranks)
    name = f"search/{words(setting)}-{rule.init}-lr{rate:g}"
    return _job(name, setting, scale, epochs, rule.init, rate, seed=0)


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
    return Job(name, setting, ranks, tuple(flags.items()), seed=0, profiled=True)


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
    if setting.rate != 1:
        told.append(f"rate-x{setting.rate:g}")
    return "-".join(told)


def planned(experiments, scale, rule, seeds):
    """Return the runs of some experiments, each once, seed by seed.

    All networks of a seed come before the next seed, so that a machine that gets
    slower or faster does so for all networks alike.

    Args:
        experiments (iterable of Experiment): What to run.
        scale (Scale): How large.
        rule (Rule): Initial weights and learning rate.
        seeds (int): How many seeds repeated experiments have.

    Returns:
        list of Job: In the order in which they are to run.
    """
    found = {}
    for seed in range(seeds):
        for experiment in experiments:
            if seed and not experiment.repeated:
                continue
            for setting in experiment.settings:
                job = of(setting, scale, rule, seed)
                found.setdefault(job.name, job)
    return list(found.values())


def quoted(command):
    """Return a command line as a shell reads it."""
    return " ".join(shlex.quote(word) for word in command)


def _job(name, setting, scale, epochs, init, rate, seed, profiled=False):
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
    return Job(name, setting, scale.ranks, kept, seed, profiled)


def _mpiexec():
    """The launcher of this interpreter's MPI, else the one on the PATH."""
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec") or "mpiexec"


def _script():
    """The script, relative to where we are if it lies below."""
    here = Path.cwd()
    return os.fspath(_SCRIPT.relative_to(here) if here in _SCRIPT.parents else _SCRIPT)
