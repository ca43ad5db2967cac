"""``python -m chainer_crossbn scaling``: the model of the time of an iteration."""

import json
import math
import subprocess
import sys

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import numpy as np
import pytest
from test_plotting import epochs

from chainer_crossbn.experiments.scaling import (
    all_reduce,
    checks,
    extrapolation,
    judging,
    model,
    observations,
    order_statistics,
    synchronization,
    tsubame_kfc,
    vgg16,
)
from chainer_crossbn.models import VGG16, normalizations

WIDTH, UNITS = 4, 32
SIZE = {"normal": 4 * vgg16.parameters(WIDTH, UNITS), "multigpu": 0}
SIZE["multigpu"] = SIZE["normal"]
COLLECTIVES = {"normal": 0, "multigpu": 26}
# Seconds: c0, c1, latency, sigma at batch 0 and per image, and that of the last.
COMPUTE = {"normal": (0.004, 0.002), "multigpu": (0.005, 0.0025)}
LATENCY = 30e-6
SKEW = 10e-6, 5e-6
LAST = 200e-6, 50e-6
BANDWIDTH = 2e9
FACTOR, TURN = 1.25, 40e-6
COMPONENTS = [
    *("data", "forward", "backward", "BN arithmetic", "BN wait", "BN transfer"),
    *("all-reduce wait", "all-reduce transfer", "update", "evaluation", "other"),
]


def times(bn, batch, ranks, cores):
    """Seconds of an iteration by the model's own assumptions: compute and the rest."""
    compute = COMPUTE[bn][0] + COMPUTE[bn][1] * batch
    count = COLLECTIVES[bn]
    transfer = 2 * (ranks - 1) / ranks * SIZE[bn] / BANDWIDTH
    if ranks > cores:
        turns = ranks / cores * (FACTOR * compute + TURN * count)
        return compute, turns - compute, 0.0, 0.0, transfer
    # Of two normal times, the mean wait is sigma / sqrt(pi).
    late = {1: 0.0, 2: 1 / math.sqrt(math.pi)}[ranks]
    return (
        compute,
        count * late * (SKEW[0] + SKEW[1] * batch),
        count * LATENCY * (ranks - 1),
        late * (LAST[0] + LAST[1] * batch),
        transfer,
    )


def write_run(root, bn, batch, ranks, cores=2, profile=True, **changes):
    """Write a profiled run with the times that the model assumes."""
    path = root / f"{bn}-b{batch}-r{ranks}"
    path.mkdir(parents=True)
    arguments = {
        **{"bn": bn, "model": "vgg16", "width": WIDTH, "fc_units": UNITS},
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
    compute, *rest = times(bn, batch, ranks, cores or 2)
    # What a rank does by itself is in six parts; evaluation is no part of it.
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
            for ranks in (1, 2, 4, 8):
                write_run(root, bn, batch, ranks)
    return root


def read(root):
    scale, seen, skipped = observations.read([str(root)])
    assert skipped == []
    return scale, seen


def test_the_fit_gives_back_what_the_profiles_were_made_of(runs):
    scale, seen = read(runs)
    assert len(seen) == 24
    assert (scale.cores, scale.width, scale.n_class) == (2, WIDTH, 10)
    fitted = model.fit(seen, scale)
    assert list(fitted.networks) == ["normal", "multigpu"]
    assert fitted.bandwidth == pytest.approx(BANDWIDTH)
    for bn, network in fitted.networks.items():
        assert network.compute == pytest.approx(COMPUTE[bn])
        assert network.last_skew == pytest.approx(LAST)
        assert network.collectives == COLLECTIVES[bn]
        assert network.gradient_bytes == SIZE[bn]
        assert network.batches == (2, 8, 64)
    assert fitted.networks["multigpu"].latency == pytest.approx(LATENCY)
    assert fitted.networks["multigpu"].skew == pytest.approx(SKEW)
    assert fitted.networks["normal"].skew == (0, 0)
    assert fitted.oversubscription == pytest.approx((8, FACTOR, TURN))
    # 26 segments, of the computing of 64 images.
    share = (SKEW[0] + 64 * SKEW[1]) * 26 / (0.005 + 64 * 0.0025)
    assert synchronization.relative_skew(fitted) == (0, pytest.approx(share))


def test_runs_that_were_left_out_are_predicted(runs):
    scale, seen = read(runs)
    found = checks.check(seen, scale)
    # 1, 2 and 4 ranks; those of 8 were fitted to.
    assert [check.seen.ranks for check in found] == [1] * 6 + [2] * 6 + [4] * 6
    assert {check.left_out for check in found if check.seen.ranks == 2} == {
        *("batch size 2", "batch size 8", "batch size 64")
    }
    assert [check.error for check in found] == pytest.approx([0] * 18, abs=1e-9)


def test_a_check_does_not_see_what_it_predicts(tmp_path):
    for batch in (2, 8, 64):
        write_run(tmp_path, "normal", batch, 2)
    scale, seen = read(tmp_path)
    spoilt = [
        s._replace(compute=2 * s.compute) if s.batch == 8 else s
        for s in sorted(seen, key=lambda s: s.batch)
    ]
    error = {c.seen.batch: c for c in checks.check(spoilt, scale)}[8]
    assert error.predicted == pytest.approx(seen_time(seen, 8))


def seen_time(seen, batch):
    return next(s.time for s in seen if s.batch == batch)


def test_one_run_that_shares_cores_gives_a_factor_alone(tmp_path):
    for batch in (2, 8):
        write_run(tmp_path, "multigpu", batch, 2)
    write_run(tmp_path, "multigpu", 8, 8)
    scale, seen = read(tmp_path)
    ranks, factor, turn = model.fit(seen, scale).oversubscription
    assert (ranks, turn) == (8, 0)
    compute = COMPUTE["multigpu"][0] + 8 * COMPUTE["multigpu"][1]
    assert factor == pytest.approx(FACTOR + TURN * 26 / compute)


def test_a_line_has_no_negative_part():
    assert model.Line.fit([2, 4, 8], [1, 2, 4]) == pytest.approx((0, 0.5))
    falling = model.Line.fit([2, 4, 8], [4.0, 3.0, 2.0])
    assert falling.per_image == 0
    assert 2 < falling.fixed < 4
    steep = model.Line.fit([2, 4, 8], [0.1, 1.0, 3.0])
    assert steep.fixed == 0
    assert steep.per_image > 0
    assert model.Line.fit([2, 4], [0.0, 0.0]) == (0, 0)


@pytest.mark.parametrize("bn", ["none", "chainer"])
@pytest.mark.parametrize("width,fc_units,n_class", [(1, 4, 10), (4, 16, 100)])
def test_parameters_are_those_of_the_model(bn, width, fc_units, n_class):
    normalization = normalizations.create(bn, comm=None)
    network = VGG16(n_class, normalization, width=width, fc_units=fc_units)
    counted = sum(parameter.size for parameter in network.params())
    found = vgg16.parameters(width, fc_units, n_class, bn != "none")
    assert found == counted


def test_operations_by_hand():
    # Published for VGG16 at 224x224: 15.5e9 multiply-adds, 138 million parameters.
    found = vgg16.convolutions(64, 224)
    forward = sum(layer.multiplications for layer in found)
    assert forward == 15_346_630_656
    linear = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    first = 224 * 224 * 27 * 64
    flops = 2 * (3 * (forward + linear) - first)
    assert vgg16.step_flops(64, 4096, 1000, 224) == flops
    layers = vgg16.convolutions()
    assert len(layers) == 13
    assert layers[0].multiplications == 32 * 32 * 27 * 64
    assert layers[12].multiplications == 2 * 2 * 9 * 512 * 512
    assert [layer.side for layer in layers if layer.last] == [32, 16, 8, 4, 2]
    # 2 layers of 64 x 32^2, 2 of 128 x 16^2, 3 of 256 x 8^2, 512 x 4^2 and 512 x 2^2.
    assert sum(layer.values for layer in layers) == 276_480
    channels = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
    assert vgg16.message_bytes() == 8 * (4 * channels + 13 * 5)


@pytest.mark.parametrize(
    "n,expected", [(1, 0), (2, 0.5642), (4, 1.0294), (8, 1.4236), (1000, 3.2414)]
)
def test_the_slowest_of_normal_ranks(n, expected):
    assert order_statistics.normal_maximum(n) == pytest.approx(expected, abs=1e-4)


def test_the_slowest_of_exponential_ranks():
    assert order_statistics.exponential_maximum(2) == 0.5
    assert order_statistics.exponential_maximum(4) == pytest.approx(13 / 12)
    normal, tails = order_statistics.slowest(2)
    assert normal == pytest.approx(tails)
    normal, tails = order_statistics.slowest(1024)
    assert tails > 2 * normal


def test_all_reduces():
    assert [all_reduce.rounds(n) for n in (1, 2, 3, 8, 9)] == [0, 1, 2, 3, 4]
    assert all_reduce.short(1, 5e-6) == 0
    assert all_reduce.short(8, 5e-6) == pytest.approx(15e-6)
    assert all_reduce.short(8, 5e-6, 1e3, 1e9) == pytest.approx(18e-6)
    assert all_reduce.long(1, 1e9, 1e9) == 0
    assert all_reduce.long(2, 1e9, 1e9) == 1
    assert all_reduce.long(10**6, 1e9, 1e9) == pytest.approx(2, rel=1e-5)


def test_extrapolation(runs):
    scale, seen = read(runs)
    fitted = model.fit(seen, scale)
    found = extrapolation.extrapolate(fitted, scale)
    assert len(found) == 5 * 2 * 2 * 7
    assert all(each.low < each.high for each in found)
    series = {}
    for each in found:
        series.setdefault(each[:3], []).append(each)
    for (_, network, batch), members in series.items():
        assert [each.ranks for each in members] == [16, 32, 64, 128, 256, 512, 1024]
        for end in ("low", "high"):
            assert np.all(np.diff([getattr(each, end) for each in members]) > 0)
        assert members[0].low > fitted.networks[network].compute(batch)
    # By hand: 16 ranks on FDR, 4 rounds of 1.05 us and 1/26 of the message each.
    network = fitted.networks["multigpu"]
    rounds = 26 * 4 * (1.05e-6 + vgg16.message_bytes(WIDTH) / 26 / 6.8e9)
    waiting = order_statistics.normal_maximum(16) * (
        26 * (SKEW[0] + 2 * SKEW[1]) + LAST[0] + 2 * LAST[1]
    )
    gradients = 2 * 15 / 16 * SIZE["multigpu"] / 6.8e9
    first = series["a rank a node, FDR", "multigpu", 2][0]
    expected = 0.005 + 2 * 0.0025 + rounds + waiting + gradients
    assert first.low == pytest.approx(expected)


def middle(skew=(0.0, 0.4)):
    return {p.name: (p.low + p.high) / 2 for p in tsubame_kfc.parameters(skew)}


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
    found = tsubame_kfc.iteration(one_node, exact, middle())
    extra = found.arithmetic + found.transfer + found.waiting
    assert found.multigpu == pytest.approx(found.normal + extra)
    assert min(found.arithmetic, found.transfer, found.waiting) > 0
    assert found.none < found.normal < found.multigpu
    # 13 us to synchronize, 2 copies of 7.5, 3 rounds of 0.65.
    each = 13e-6 + 15e-6 + 3 * 0.65e-6
    assert found.collectives == 26
    assert found.transfer == pytest.approx(26 * each)
    twice = tsubame_kfc.iteration(one_node, two, middle())
    assert twice.transfer == pytest.approx(2 * found.transfer)
    assert twice.waiting == pytest.approx(found.waiting)
    half = tsubame_kfc.iteration(one_node, local, middle())
    assert half.transfer == pytest.approx(found.transfer / 2)
    assert half.waiting < found.waiting
    none = tsubame_kfc.iteration(
        one_node, exact, {**middle(), "skew": 0, "rewritten": 0}
    )
    assert none.waiting == none.arithmetic == none.once == 0


def test_the_efficiency_that_was_measured():
    # 36.3 images/s, 6 operations for each of 15.47e9 multiply-adds, 2.8 TFLOPS.
    (efficiency, *_) = tsubame_kfc.parameters((0, 1))
    assert efficiency.high == pytest.approx(36.3 * 6 * 15.47e9 / 2.8e12, rel=0.01)


def test_claim_7():
    quiet, uneven = (
        synchronization.claim7((0.0, 0.01)),
        synchronization.claim7((0.0, 0.5)),
    )
    for found in (quiet, uneven):
        assert len(found["rows"]) == 44
        for row in found["rows"]:
            low, between, high = row["ratio"]
            assert 1 <= low < between < high
            assert sum(row["split"].values()) == pytest.approx(1)
            assert row["none_to_normal"][2] <= 1
        json.dumps(found, allow_nan=False)
    assert quiet["verdict"] == judging.UNCLEAR
    assert not any(row["reached"] or row["as_paper"] for row in quiet["rows"])
    assert uneven["verdict"] == judging.HOLDS
    assert any(row["as_paper"] for row in uneven["rows"])
    # One at a time.
    for name in ("skew", "tails", "copy", "rewritten"):
        low, between, high = uneven["sensitivity"][name]
        assert low < between < high


@pytest.mark.parametrize(
    "ends,expected",
    [
        ((0.1, 0.4), judging.HOLDS),
        ((0.6, 0.9), judging.FAILS),
        ((0.4, 0.6), judging.UNCLEAR),
    ],
)
def test_the_verdict(ends, expected):
    """By the arithmetic's share of the extra time."""
    least, most = ends
    split = {"arithmetic": [least, (least + most) / 2, most]}
    rows = [{"as_paper": 0}, {"as_paper": 3, "as_paper_split": split}]
    assert judging.verdict(rows) == expected
    assert judging.verdict(rows[:1]) == judging.UNCLEAR


def test_what_the_paper_s_ratio_would_take():
    """The factor and the skew that claim 7 names do give the ratio."""
    found = synchronization.claim7((0.0, 0.5))
    row = found["rows"][-2]
    layout = tsubame_kfc.Layout(*(row[key] for key in tsubame_kfc.Layout._fields))
    variant = tsubame_kfc.Variant(*(row[key] for key in tsubame_kfc.Variant._fields))
    values = {**middle((0.0, 0.5)), "skew": row["skew"]}
    seen = tsubame_kfc.iteration(layout, variant, values)
    assert seen.multigpu / seen.normal == pytest.approx(1211 / 804)
    values["skew"] = 0.0
    for name in ("synchronize", "copy", "inside", "between"):
        values[name] *= row["factor"]
    seen = tsubame_kfc.iteration(layout, variant, values)
    assert seen.multigpu / seen.normal == pytest.approx(1211 / 804)


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
    assert names == [f"scaling.{suffix}" for suffix in ("json", "md", "pdf", "png")]
    text = (tmp_path / "new/scaling.md").read_text()
    assert text in done.stdout
    assert "model, not checked here" in text
    content = json.loads((tmp_path / "new/scaling.json").read_text())
    fitted = content["model"]["networks"]["multigpu"]
    assert fitted["compute"]["fixed"] == pytest.approx(0.005)
    assert content["extrapolation"]["label"] == "model, not checked here"
    assert len(content["checks"]) == 18
    skew = synchronization.claim7(
        synchronization.relative_skew(model.fit(*reversed(read(runs))))
    )
    assert content["claim7"]["verdict"] == skew["verdict"]
    again = command(runs, "--out", tmp_path / "new")
    assert again.returncode == 0, again.stderr


def test_no_chainer_is_imported():
    code = (
        "import sys, chainer_crossbn.experiments.scaling\n"
        "print(sorted({'chainer', 'chainermn', 'mpi4py'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def refused(done, message):
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("chainer_crossbn scaling: error: ")
    assert message in line
    assert done.stdout == ""


@pytest.mark.parametrize(
    "changes,message",
    [
        ([{"cores": None}], "does not tell the number of cores"),
        ([{"cores": 1}], "had one core"),
        ([{"width": 8}, {}], "not of one scale: width 8 and width 4"),
        ([{"threads": 1}, {"threads": 2}], "differ in --threads"),
        ([{"profile": False}], "no profiled run"),
        ([{}], "two batch sizes"),
        ([{"model": "other"}], "VGG16"),
    ],
)
def test_runs_that_give_no_model(tmp_path, changes, message):
    for number, change in enumerate(changes):
        write_run(tmp_path / "runs", "normal", 2 << number, 2, **change)
    refused(command(tmp_path / "runs", "--out", tmp_path / "new"), message)
    assert not (tmp_path / "new").exists()


def test_bad_paths(tmp_path):
    refused(command(tmp_path / "none"), "no such file or directory")
    refused(command(tmp_path), "no profiled run")
    refused(command(), "the following arguments are required")
    write_run(tmp_path, "normal", 2, 1)
    refused(command(tmp_path), "no profiled run of 2 ranks")


def test_runs_that_are_not_covered_are_named(tmp_path):
    for batch in (2, 8):
        write_run(tmp_path, "normal", batch, 2)
    path = write_run(tmp_path, "normal", 4, 2, bn_layers="front:3")
    done = command(tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"chainer_crossbn scaling: skipped {path}: ")
    # No all-reduces, no skew to start from.
    assert json.loads((tmp_path / "scaling.json").read_text())["claim7"] is None


def test_runs_with_virtual_ranks_are_left_out(tmp_path):
    write_run(tmp_path, "normal", 2, 2)
    path = write_run(tmp_path, "normal", 8, 2, virtual_ranks=2)
    _, seen, skipped = observations.read([str(tmp_path)])
    assert [each.batch for each in seen] == [2]
    assert skipped == [(path, "the model does not cover virtual ranks")]


@pytest.mark.parametrize("name", ["scaling.md", "scaling.json", "scaling.png"])
def test_a_file_of_the_user_is_not_overwritten(runs, tmp_path, name):
    (tmp_path / name).write_text("mine")
    refused(command(runs, "--out", tmp_path), "is not overwritten")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
