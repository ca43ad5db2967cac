"""The flags that choose a normalization, as a user sees them."""

import math

import pytest
from mpi import train_each
from test_train_cifar import SMALL, SYNTHETIC, assert_refused, but_times, read

from chainer_crossbn.commands import plot
from chainer_crossbn.commands.train import options
from chainer_crossbn.commands.train.main import main

OPTIONS = {
    *("bn_group_size", "bn_layers", "bn_rest", "paper_allreduces", "paper_backward"),
    *("groups", "weight_norm_init"),
}
PAPER = {"paper_allreduces": 2, "paper_backward": "exact"}
# Flags behind --bn -> words of the run's name, options that are not null, and what
# figures and tables call the network.
RUNS = {
    "paper": (
        "paper",
        {"paper_allreduces": 2, "paper_backward": "exact"},
        "multigpuBN as written",
    ),
    "chainermn": ("chainermn", {}, "ChainerMN's BN"),
    "layer": ("layer", {}, "LayerNorm"),
    "group": ("group", {"groups": 32}, "GroupNorm"),
    "weight": ("weight", {"weight_norm_init": "norm"}, "WeightNorm"),
    "multigpu --bn-group-size 1": (
        "multigpu-groups-of-1",
        {"bn_group_size": 1},
        "multigpuBN (groups of 1)",
    ),
    # groups of as many as there are ranks are none
    "paper --paper-allreduces 1 --paper-backward local --bn-group-size 2": (
        "paper-1-allreduce-local-backward",
        {"paper_allreduces": 1, "paper_backward": "local"},
        "multigpuBN as written (1 all-reduce, local backward)",
    ),
    "chainermn --bn-group-size 1 --bn-layers back:3": (
        "chainermn-groups-of-1-back3-rest-normal",
        {"bn_group_size": 1, "bn_layers": "back:3", "bn_rest": "normal"},
        "ChainerMN's BN (groups of 1, back 3, rest normal)",
    ),
    "group --groups 4 --bn-layers front:4 --bn-rest none": (
        "group-4-groups-front4-rest-none",
        {"groups": 4, "bn_layers": "front:4", "bn_rest": "none"},
        "GroupNorm (4 groups, front 4, rest none)",
    ),
    "weight --weight-norm-init data": (
        "weight-data-init",
        {"weight_norm_init": "data"},
        "WeightNorm (data init)",
    ),
}


def run_name(words):
    return f"vgg16-{words}-b4-r2-s0"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Return the directory of a run on two ranks for each of ``RUNS``, and normal."""
    out = tmp_path_factory.mktemp("flags") / "result"
    common = (*SMALL, *SYNTHETIC, "--epoch", 1, "--out", out)
    lines = [(*common, "--bn", *flags.split()) for flags in (*RUNS, "normal")]
    done = train_each(2, lines, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


@pytest.mark.parametrize("flags", RUNS)
def test_it_trains(out, flags):
    words, options, _ = RUNS[flags]
    record, log, _ = read(out / run_name(words))
    recorded = {name: record["arguments"][name] for name in OPTIONS}
    assert recorded == {**dict.fromkeys(OPTIONS), **options}
    assert record["arguments"]["bn"] == flags.split()[0]
    (entry,) = log
    assert entry["epoch"] == 1
    for part in ("main", "train/main", "validation/main"):
        assert math.isfinite(entry[f"{part}/loss"])
        assert 0 <= entry[f"{part}/accuracy"] <= 1


def test_groups_of_one_rank_are_normal(out):
    _, log, arrays = read(out / run_name("multigpu-groups-of-1"))
    _, its_log, its_arrays = read(out / run_name("normal"))
    assert sorted(arrays) == sorted(its_arrays)
    for name, array in arrays.items():
        assert (array == its_arrays[name]).all(), name
    assert but_times(log) == but_times(its_log)


def test_plot_draws_them(out, tmp_path, call):
    done = call(plot.main, out, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for _, _, network in RUNS.values():
        assert f"  {network}  " in done.stdout
    for name in ("loss", "accuracy", "accuracy_time", "epoch_time"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize(
    "flags,words",
    [
        ("multigpu --bn-layers all", "multigpu"),
        ("paper --paper-allreduces 2 --paper-backward exact", "paper"),
        ("group --groups 32", "group"),
        ("weight --weight-norm-init norm", "weight"),
        ("layer --bn-layers front:13 --bn-rest none", "layer"),
        ("layer --bn-layers front:12", "layer-front12-rest-normal"),
        ("multigpu --bn-group-size 8", "multigpu"),
        ("normal --bn-layers back:1 --bn-rest none", "normal-back1-rest-none"),
        ("paper --paper-allreduces 1", "paper-1-allreduce"),
    ],
)
def test_names_tell_what_is_not_the_default(flags, words):
    args = options.parse(["--bn", *flags.split()])
    options.complete(args, 8)
    assert args.name == f"vgg16-{words}-b64-r8-s0"


BAD = {
    "--bn normal --bn-layers front:3": (
        "--bn-layers with --bn normal leaves no other layers; choose --bn-rest none"
    ),
    "--bn multigpu --bn-layers front:03": "'front:03' is not all, front:K or back:K",
    "--bn normal --bn-group-size 1": (
        "--bn-group-size applies to --bn multigpu, paper or chainermn, not normal"
    ),
    "--groups 4": "--groups applies to --bn group, not multigpu",
    # even if it is the default of another
    "--bn chainermn --paper-allreduces 2": (
        "--paper-allreduces applies to --bn paper, not chainermn"
    ),
    "--bn layer --paper-backward local": (
        "--paper-backward applies to --bn paper, not layer"
    ),
    "--bn group --weight-norm-init data": (
        "--weight-norm-init applies to --bn weight, not group"
    ),
    "--bn none --bn-layers front:3": "--bn-layers applies to --bn normal, .*, not none",
    "--bn weight --bn-layers back:3": "--bn-layers applies to .*, not weight",
    "--bn-rest none": "--bn-rest needs --bn-layers front:K or back:K",
    "--bn-group-size 3": "--bn-group-size 3 does not divide the 2 ranks; choose 1 or 2",
    "--bn-group-size 0": "--bn-group-size: '0' is not a whole number at least 1",
    "--bn-layers front:14": (
        "--bn-layers front:14 is more than the 13 normalizations of vgg16"
    ),
    "--bn-layers front:0": (
        "--bn-layers: 'front:0' is not all, front:K or back:K with K at least 1"
    ),
    "--bn-layers middle:3": "--bn-layers: 'middle:3' is not all, front:K or back:K",
    "--bn paper --paper-allreduces 3": "--paper-allreduces: invalid choice: 3",
    "--bn group --groups 0": "--groups: '0' is not a whole number at least 1",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_arguments(tmp_path, call, flags):
    out = tmp_path / "result"
    common = (*SMALL, *SYNTHETIC, "--virtual-ranks", 2, "--out", out)
    done = call(main, *common, *flags.split())
    assert_refused(done, BAD[flags])
    assert not out.exists()
