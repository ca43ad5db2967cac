"""``python -m chainer_crossbn scaling``: times by ranks, and claim 7 in a model."""

import json
import math
import subprocess
import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import pytest
from test_plotting import epochs

from chainer_crossbn.experiments.scaling import (
    claim7,
    observations,
    skew,
    tsubame_kfc,
    vgg16,
)
from chainer_crossbn.models import VGG16, normalizations

COLLECTIVES = {"normal": 0, "multigpu": 26}
# Seconds: computing, the deviation between two all-reduces, each fixed and per image.
COMPUTE = {"normal": (0.004, 0.002), "multigpu": (0.005, 0.0025)}
SKEW = 10e-6, 5e-6
# Of an all-reduce of a normalization, and of that of the gradients.
TRANSFER, WAIT, GRADIENTS = 30e-6, 200e-6, 400e-6
COMPONENTS = [
    *("data", "forward", "backward", "BN arithmetic", "BN wait", "BN transfer"),
    *("all-reduce wait", "all-reduce transfer", "update", "evaluation", "other"),
]


def times(bn, batch, ranks):
    """Return the seconds of an iteration: computing, and the parts of all-reduces."""
    compute = COMPUTE[bn][0] + COMPUTE[bn][1] * batch
    if ranks == 1:
        return compute, 0.0, 0.0, 0.0, 0.0
    # Of two normal times, the mean wait is sigma / sqrt(pi).
    wait = COLLECTIVES[bn] * (SKEW[0] + SKEW[1] * batch) / math.sqrt(math.pi)
    return compute, wait, COLLECTIVES[bn] * TRANSFER, WAIT, GRADIENTS


def write_run(root, bn, batch, ranks, cores=2, profile=True, **changes):
    """Write a profiled run with known times."""
    path = root / f"{bn}-b{batch}-r{ranks}"
    path.mkdir(parents=True)
    arguments = {
        **{"bn": bn, "model": "vgg16", "width": 4, "fc_units": 32},
        **{"batchsize": batch, "epoch": 3, "seed": 0, "dataset": "synthetic"},
        **{"dropout": 0.0, "communicator": "host", "threads": 1},
        **changes,
    }
    record = {
        **{"program": "chainer_crossbn", "arguments": arguments, "n_ranks": ranks},
        **{"device": "CPU", "dataset": {"name": "synthetic"}, "cores": cores},
        "virtual_ranks": changes.get("virtual_ranks"),
    }
    (path / "args.json").write_text(
        json.dumps({k: v for k, v in record.items() if v is not None})
    )
    (path / "log").write_text(json.dumps(epochs(bn)))
    if not profile:
        return path
    compute, *rest = times(bn, batch, ranks)
    # Computing is in six parts; evaluation is no part of it.
    shares = [0.05, 0.3, 0.5, 0.05, 0.06, 0.04]
    parts = dict(zip(("data", "forward", "backward", "BN arithmetic"), shares))
    parts.update(zip(("update", "other"), shares[4:]))
    seconds = {name: share * compute for name, share in parts.items()}
    names = ("BN wait", "BN transfer", "all-reduce wait", "all-reduce transfer")
    seconds.update(zip(names, rest), evaluation=0.5)
    epoch = {
        "iterations": 10,
        "wall": 1e6 * sum(seconds.values()),
        "components": [1e6 * seconds[name] for name in COMPONENTS],
        "layers": {"/norm": [0, 0, 0, 0]},
    }
    waits = [[rank, "BN wait", 0, 1, 1] for rank in (0, 1)] * COLLECTIVES[bn]
    content = {
        "components": COMPONENTS,
        "epochs": [epoch, epoch],
        "timeline": {"layers": [""], "events": [[0, "forward", 0, 0, 9], *waits]},
    }
    (path / "profile.json").write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for bn in ("normal", "multigpu"):
        for batch in (2, 8, 64):
            for ranks in (1, 2):
                write_run(root, bn, batch, ranks)
    return root


def test_times_are_those_of_the_profiles(runs):
    scale, observed, skipped = observations.read([str(runs)])
    assert scale == "VGG16, synthetic images, width 4, fc units 32, cores 2"
    assert skipped == []
    assert [each[:3] for each in observed] == [
        (bn, batch, ranks)
        for bn in ("normal", "multigpu")
        for batch in (2, 8, 64)
        for ranks in (1, 2)
    ]
    for each in observed:
        seconds = times(each.network, each.batch, each.ranks)
        assert each.compute == pytest.approx(seconds[0])
        assert each.bn_wait == pytest.approx(seconds[1])
        assert each.time == pytest.approx(sum(seconds))
        assert each.collectives == COLLECTIVES[each.network]


def test_the_skew_is_that_of_the_largest_batch(runs):
    _, observed, _ = observations.read([str(runs)])
    share = (SKEW[0] + 64 * SKEW[1]) * 26 / (0.005 + 64 * 0.0025)
    assert skew.relative_skew(observed) == pytest.approx(share)


def test_no_skew_where_ranks_share_a_core(tmp_path):
    for batch in (2, 8):
        write_run(tmp_path, "multigpu", batch, 2, cores=1)
    _, observed, _ = observations.read([str(tmp_path)])
    assert skew.relative_skew(observed) is None


def test_parameters_are_those_of_the_model():
    normalization = normalizations.create("chainer", comm=None)
    network = VGG16(10, normalization)
    counted = sum(parameter.size for parameter in network.params())
    assert vgg16.parameters() == counted


def test_operations_by_hand():
    # Published for VGG16 at 224x224: 15.5e9 multiply-adds, 138 million parameters.
    forward = 15_346_630_656
    linear = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    first = 224 * 224 * 27 * 64
    flops = 2 * (3 * (forward + linear) - first)
    assert vgg16.step_flops(n_class=1000, side=224) == flops
    layers = vgg16.convolutions()
    assert len(layers) == 13
    assert layers[0].weights == 27 * 64
    assert layers[12].weights == 9 * 512 * 512
    assert [layer.side for layer in layers if layer.pooled] == [32, 16, 8, 4, 2]
    # 2 layers of 64 x 32^2, 2 of 128 x 16^2, 3 of 256 x 8^2, 512 x 4^2 and 512 x 2^2.
    assert sum(layer.values for layer in layers) == 276_480


@pytest.mark.parametrize(
    "n,expected", [(1, 0), (2, 0.5642), (4, 1.0294), (8, 1.4236), (1000, 3.2414)]
)
def test_the_slowest_of_normal_ranks(n, expected):
    assert skew.normal_maximum(n) == pytest.approx(expected, abs=1e-4)


def test_the_slowest_of_exponential_ranks():
    two = skew.normal_maximum(2)
    assert skew.exponential_maximum(1) == 0
    assert skew.exponential_maximum(2) == pytest.approx(two)
    assert skew.exponential_maximum(4) == pytest.approx(two * 2 * 13 / 12)
    assert skew.exponential_maximum(1024) > 2 * skew.normal_maximum(1024)


def middle(relative_skew=0.4):
    parameters = tsubame_kfc.parameters(relative_skew)
    return {p.name: (p.low + p.high) / 2 for p in parameters}


def test_the_layouts_of_tsubame_kfc():
    assert len(tsubame_kfc.LAYOUTS) == 11
    for layout in tsubame_kfc.LAYOUTS:
        assert layout.per_node <= 4 * layout.dies
    assert (16, 2, 2) in tsubame_kfc.LAYOUTS
    assert (8, 1, 1) not in tsubame_kfc.LAYOUTS
    assert {layout.gpus for layout in tsubame_kfc.LAYOUTS} == {2, 4, 8, 16}


def test_the_extra_time_by_its_parts():
    exact = tsubame_kfc.Variant(1, "exact")
    two, local = exact._replace(n_allreduces=2), exact._replace(backward="local")
    one_node = tsubame_kfc.Layout(8, 1, 2)
    once = tsubame_kfc.iteration(one_node, exact, middle())
    extra = once.arithmetic + once.transfer + once.waiting
    assert once.multigpu == pytest.approx(once.normal + extra)
    assert min(once.arithmetic, once.transfer, once.waiting) > 0
    assert once.none < once.normal < once.multigpu
    # 13 us to synchronize, 2 copies of 7.5, 3 rounds of 0.65.
    each = 13e-6 + 15e-6 + 3 * 0.65e-6
    assert once.collectives == 26
    assert once.transfer == pytest.approx(26 * each)
    twice = tsubame_kfc.iteration(one_node, two, middle())
    assert twice.transfer == pytest.approx(2 * once.transfer)
    assert twice.waiting == pytest.approx(once.waiting)
    half = tsubame_kfc.iteration(one_node, local, middle())
    assert half.transfer == pytest.approx(once.transfer / 2)
    assert half.waiting < once.waiting
    none = tsubame_kfc.iteration(
        one_node, exact, {**middle(), "skew": 0, "rewritten": 0}
    )
    assert none.waiting == none.arithmetic == none.once == 0


def test_the_efficiency_that_was_measured():
    # 36.3 images/s, 6 operations for each of 15.47e9 multiply-adds, 2.8 TFLOPS.
    (efficiency, *_) = tsubame_kfc.parameters(1.0)
    assert efficiency.high == pytest.approx(36.3 * 6 * 15.47e9 / 2.8e12, rel=0.01)


def evaluate(relative_skew):
    return claim7.evaluate(tsubame_kfc.parameters(relative_skew))


def test_claim_7():
    quiet, uneven = evaluate(0.01), evaluate(0.5)
    for configurations in (quiet, uneven):
        assert len(configurations) == 44
        for each in configurations:
            low, between, high = each.ratio
            assert 1 <= low < between < high
            assert each.none_to_normal[2] <= 1
    assert claim7.verdict(quiet) == claim7.UNCLEAR
    assert not any(each.reached or each.matches for each in quiet)
    assert claim7.verdict(uneven) == claim7.HOLDS
    assert any(each.matches for each in uneven)


@pytest.mark.parametrize(
    "shares,expected",
    [
        ((0.6, 0.9), claim7.HOLDS),
        ((0.1, 0.4), claim7.FAILS),
        ((0.4, 0.6), claim7.UNCLEAR),
    ],
)
def test_the_verdict(shares, expected):
    """By the share of transfer and waiting in the extra time."""
    none = evaluate(0.01)[0]
    matching = none._replace(matches=3, matching_shares=shares)
    assert claim7.verdict([none, matching]) == expected
    assert claim7.verdict([none]) == claim7.UNCLEAR


def test_what_the_paper_s_ratio_would_take():
    """The factor and the skew that claim 7 names do give the ratio."""
    each = evaluate(0.5)[-2]
    values = {**middle(0.5), "skew": each.needed_skew}
    times = tsubame_kfc.iteration(each.layout, each.variant, values)
    assert times.multigpu / times.normal == pytest.approx(1211 / 804)
    values["skew"] = 0.0
    for name in ("synchronize", "copy", "inside", "between"):
        values[name] *= each.needed_factor
    times = tsubame_kfc.iteration(each.layout, each.variant, values)
    assert times.multigpu / times.normal == pytest.approx(1211 / 804)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "chainer_crossbn", "scaling", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_files(runs, tmp_path):
    done = command(runs, "--out", tmp_path / "new")
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["scaling.json", "scaling.md"]
    text = (tmp_path / "new/scaling.md").read_text()
    assert text in done.stdout
    milliseconds = [f"{1e3 * sum(times('multigpu', 8, n)):.1f}" for n in (1, 2)]
    assert f"| multigpuBN | 8 | {' | '.join(milliseconds)} |" in text
    content = json.loads((tmp_path / "new/scaling.json").read_text())
    assert len(content["observations"]) == 12
    assert len(content["claim7"]["configurations"]) == 44
    share = (SKEW[0] + 64 * SKEW[1]) * 26 / (0.005 + 64 * 0.0025)
    assert content["claim7"]["verdict"] == claim7.verdict(evaluate(share))
    again = command(runs, "--out", tmp_path / "new")
    assert again.returncode == 0, again.stderr


def refused(done, message):
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("chainer_crossbn scaling: error: ")
    assert message in line
    assert done.stdout == ""


@pytest.mark.parametrize(
    "changes,message",
    [
        ([{"cores": None}], "no number of cores"),
        ([{"width": 8}, {}], "not of one scale: width 8 and width 4"),
        ([{"threads": 1}, {"threads": 2}], "not of one scale: threads 1 and threads 2"),
        ([{"profile": False}], "no profiled run"),
        ([{"model": "other"}], "VGG16"),
    ],
)
def test_runs_that_are_refused(tmp_path, changes, message):
    for number, change in enumerate(changes):
        write_run(tmp_path / "runs", "normal", 2 << number, 2, **change)
    refused(command(tmp_path / "runs", "--out", tmp_path / "new"), message)
    assert not (tmp_path / "new").exists()


def test_bad_paths(tmp_path):
    refused(command(tmp_path / "none"), "no such file or directory")
    refused(command(tmp_path), "no profiled run")
    refused(command(), "the following arguments are required")


def test_runs_that_are_left_out_are_named(tmp_path):
    for batch in (2, 8):
        write_run(tmp_path, "normal", batch, 2)
    path = write_run(tmp_path, "normal", 4, 2, virtual_ranks=2)
    done = command(tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"chainer_crossbn scaling: skipped {path}: ")
    content = json.loads((tmp_path / "scaling.json").read_text())
    assert [each["batch"] for each in content["observations"]] == [2, 8]
    # Without all-reduces there is no skew to start from.
    assert content["claim7"] is None


@pytest.mark.parametrize("name", ["scaling.md", "scaling.json"])
def test_a_file_of_the_user_is_not_overwritten(runs, tmp_path, name):
    (tmp_path / name).write_text("mine")
    refused(command(runs, "--out", tmp_path), "is not overwritten")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
