"""The map of learning rates: reading, judging, choosing, drawing; of made-up runs."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from chainer_crossbn.commands import experiments
from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import (
    figures,
    jobs,
    map_choice,
    rules,
    rules_by_claims,
    runner,
)
from chainer_crossbn.experiments.claims import FAILS, HOLDS
from chainer_crossbn.experiments.definitions import SCALES, Setting
from chainer_crossbn.experiments.learning_rate_map import (
    MapResults,
    grid_choices,
    grid_rates,
    has_diverged,
    rules_within,
)
from chainer_crossbn.experiments.results import NotRun
from chainer_crossbn.experiments.rules import STANDARD, Rule
from chainer_crossbn.experiments.rules_by_claims import NOT_RUN, UNCLEAR

LAPTOP = SCALES["laptop"]
RATES = LAPTOP.map.rates
# The same with one initialization, for what has nothing to do with it.
ONE_INIT = replace(LAPTOP, map=replace(LAPTOP.map, inits=("lecun",)))
DIVERGED = "diverged"


@pytest.fixture(autouse=True)
def no_committed_rules(monkeypatch, tmp_path):
    monkeypatch.setattr(rules, "COMMITTED", tmp_path / "none")


def write_run(out, job, found):
    """Write a run.

    ``found`` is a pair of test and training accuracy, to which the run rises evenly
    from chance, or ``DIVERGED``.
    """
    path = job.directory(out)
    path.mkdir(parents=True)
    flags = {flag.replace("-", "_"): value for flag, value in job.flags}
    record = {
        "program": "chainer_crossbn",
        "arguments": {**flags, "model": "vgg16", "name": path.name},
        "n_ranks": job.ranks,
        "virtual_ranks": job.ranks,
        "device": "CPU",
        "dataset": {"name": "cifar10", "checksum": "c0ffee"},
        "versions": {"mpi": "MPICH Version:      5.0"},
    }
    record["dataset"].update(train=flags["train_size"], test=10_000)
    if found == DIVERGED:
        record.update(ended="the loss is nan", diverged=True)
    (path / "args.json").write_text(json.dumps(record))
    if found == DIVERGED:
        return
    test, training = found
    epochs = flags["epoch"]
    log = [
        {
            "epoch": epoch,
            "train_time": epoch,
            "elapsed_time": epoch + 0.5,
            "train/main/loss": 2.3 * (1 - training * epoch / epochs),
            "validation/main/loss": 2.3 * (1 - test * epoch / epochs),
            "train/main/accuracy": 0.1 + (training - 0.1) * epoch / epochs,
            "validation/main/accuracy": 0.1 + (test - 0.1) * epoch / epochs,
        }
        for epoch in range(1, epochs + 1)
    ]
    (path / "log").write_text(json.dumps(log))
    readings = ("averaged", "rank0", "within") if flags["bn"] == "normal" else ()
    told = {reading: {"loss": 1.0, "accuracy": test} for reading in readings}
    (path / "statistics.json").write_text(json.dumps({"test": told, "layers": []}))


def write_map(out, scale, accuracies):
    """Write a map.

    ``accuracies`` is a function of bn, batch, init and rate, that returns what
    :func:`write_run` takes, or ``None`` for a run that is missing.
    """
    for init in scale.map.inits:
        for bn, batch in scale.map.cells:
            for rate in scale.map.rates:
                found = accuracies(bn, batch, init, rate)
                if found is not None:
                    job = jobs.map_job(bn, batch, init, rate, scale)
                    write_run(out, job, found)
    return MapResults(scale, out)


def learned(share):
    """Test and training accuracy of a network that has learned that share."""
    return 0.1 + 0.5 * share, 0.1 + 0.7 * share


def peaks(bn, batch, init, rate):
    """Each network is best at a rate of its own, normalBN at 64 at 0.016 under He."""
    best = {64: 0.016, 4: 0.004, 2: 0.002}[batch]
    far = abs(math.log2(rate / best))
    share = max(0.0, 1 - 0.2 * far) * {"none": 0.6, "normal": 0.9, "multigpu": 1}[bn]
    return learned(share * (1 if init == "he" else 0.9))


# Reading


def test_each_run_is_found_at_its_place(tmp_path):
    found = write_map(tmp_path, LAPTOP, peaks)
    assert len(found.runs) == found.n_planned == 112
    run = found.run("multigpu", 4, "he", 0.004)
    assert (run.network, run.batch) == ("multigpu", 4)
    assert (run.arguments["init"], run.arguments["lr"]) == ("he", 0.004)
    assert run.final_accuracy == pytest.approx(0.6)
    assert not has_diverged(run)
    assert found.n_test == 10_000


def test_a_diverged_run_is_at_chance(tmp_path):
    found = write_map(
        tmp_path, ONE_INIT, lambda bn, *_: DIVERGED if bn == "none" else (0.5, 0.6)
    )
    run = found.run("none", 64, "lecun", 0.008)
    assert has_diverged(run)
    assert run.final_accuracy == 0.1
    assert len(run.columns["epoch"]) == LAPTOP.map.epochs
    for part in ("train", "validation"):
        assert set(run.columns[f"{part}/main/accuracy"]) == {0.1}
        assert np.isnan(run.columns[f"{part}/main/loss"]).all()
    verdicts = rules_by_claims.judge_rules(found)[Rule("lecun", 0.016, "linear")]
    # noBN comes to no accuracy above chance, with which rates could be compared.
    assert (verdicts["1a"], verdicts["1b"]) == (UNCLEAR, HOLDS)


def test_what_is_not_finished_is_missing(tmp_path):
    write_map(
        tmp_path, ONE_INIT, lambda bn, batch, *_: (0.5, 0.6) if batch == 64 else None
    )
    job = jobs.map_job("normal", 2, "lecun", 0.008, ONE_INIT)
    write_run(tmp_path, job, (0.5, 0.6))
    (job.directory(tmp_path) / "statistics.json").unlink()
    found = MapResults(ONE_INIT, tmp_path)
    assert (len(found.runs), found.n_planned) == (24, 56)
    assert found.run("normal", 2, "lecun", 0.008) is None
    for verdicts in rules_by_claims.judge_rules(found).values():
        missing = {number for number, v in verdicts.items() if v == NOT_RUN}
        assert missing == {"4", "5", "6a", "6b"}


# Paths


def test_rules_lie_within_the_grid():
    within = rules_within(ONE_INIT)
    rates = {
        scaling: [rule.base_rate for rule in within if rule.scaling == scaling]
        for scaling in ("constant", "sqrt", "linear")
    }
    assert rates["constant"] == list(RATES)
    assert rates["sqrt"] == list(RATES[3:])
    assert rates["linear"] == list(RATES[5:])
    assert len(rules_within(LAPTOP)) == 2 * (8 + 5 + 3)


@pytest.mark.parametrize(
    "scaling,at_4,at_2",
    [
        ("constant", (0.032,), (0.032,)),
        ("sqrt", (0.008,), (0.004, 0.008)),
        ("linear", (0.002,), (0.001,)),
    ],
)
def test_path_of_a_rule(scaling, at_4, at_2):
    rule = Rule("he", 0.032, scaling)
    assert grid_rates(rule, LAPTOP) == {64: (0.032,), 4: at_4, 2: at_2}
    assert grid_choices(rule, LAPTOP) == [
        {64: 0.032, 4: at_4[0], 2: rate} for rate in at_2
    ]


def test_a_path_may_leave_the_grid():
    assert grid_rates(Rule("he", 0.001, "linear"), LAPTOP)[2] == ()


# Judging

BASE = 0.032
# The rates under BASE, by scaling.
AT = {
    "constant": {4: [BASE], 2: [BASE]},
    "sqrt": {4: [0.008], 2: [0.004, 0.008]},
    "linear": {4: [0.002], 2: [0.001]},
}
# What makes a claim hold, and no other: (bn, batch) -> accuracies.
MAKES = {
    "1a": {("none", 64): (0.50, 0.30)},
    "1b": {("none", 64): (0.40, 0.60)},
    "2": {("multigpu", 64): (0.50, 0.60)},
    "4": {("normal", 2): (0.25, 0.30)},
    "5": {("multigpu", 2): (0.50, 0.70)},
    "6a": {("normal", 4): (0.40, 0.50), ("multigpu", 4): (0.40, 0.50)},
    "6b": {("multigpu", 4): (0.60, 0.60)},
}


def level(bn, batch):
    """Accuracies with which no claim holds."""
    return (0.55 if (bn, batch) == ("multigpu", 64) else 0.50), 0.60


def made(number, rates):
    """Return accuracies with which a claim holds at some rates, and nothing else."""

    def accuracies(bn, batch, init, rate):
        changed = MAKES[number] if rate in rates else {}
        return changed.get((bn, batch), level(bn, batch))

    return accuracies


def holding(found):
    judgements = rules_by_claims.judge_rules(found)
    return {rule: rules_by_claims.holding(v) for rule, v in judgements.items()}


@pytest.mark.parametrize("number", ["4", "5", "6a", "6b"])
@pytest.mark.parametrize("scaling", AT)
def test_a_claim_holds_under_one_scaling(tmp_path, number, scaling):
    ((_, batch), *_) = MAKES[number]
    found = write_map(tmp_path, ONE_INIT, made(number, AT[scaling][batch]))
    held = {r.scaling: v for r, v in holding(found).items() if r.base_rate == BASE}
    assert held == {each: [number] if each == scaling else [] for each in AT}


@pytest.mark.parametrize("number", ["1a", "1b", "2"])
def test_a_claim_of_batch_size_64_holds_at_one_rate(tmp_path, number):
    # Of all the rules, a constant rate alone can be so low at 64.
    found = write_map(tmp_path, ONE_INIT, made(number, [0.001]))
    held = {rule: numbers for rule, numbers in holding(found).items() if numbers}
    assert held == {Rule("lecun", 0.001, "constant"): [number]}


@pytest.mark.parametrize("neighbour", AT["sqrt"][2])
def test_neighbours_that_disagree_tell_nothing(tmp_path, neighbour):
    found = write_map(tmp_path, ONE_INIT, made("4", [neighbour]))
    judgements = rules_by_claims.judge_rules(found)
    assert judgements[Rule("lecun", BASE, "sqrt")]["4"] == UNCLEAR
    assert judgements[Rule("lecun", neighbour, "constant")]["4"] == HOLDS


def test_a_missing_neighbour_is_not_run(tmp_path):
    def accuracies(bn, batch, init, rate):
        return None if (bn, batch, rate) == ("normal", 2, 0.004) else (0.5, 0.6)

    found = write_map(tmp_path, ONE_INIT, accuracies)
    verdicts = rules_by_claims.judge_rules(found)[Rule("lecun", BASE, "sqrt")]
    assert (verdicts["4"], verdicts["5"]) == (NOT_RUN, FAILS)


def test_the_margin_is_that_of_all_test_images(tmp_path):
    # 2 * sqrt(0.5 / 10,000) is 1.4 points; of 2,000 images it would be 3.2.
    for gap, verdict in ((0.013, HOLDS), (0.015, FAILS)):
        found = write_map(
            tmp_path / str(gap),
            ONE_INIT,
            lambda bn, *_, gap=gap: (0.5 + gap * (bn == "multigpu"), 0.6),
        )
        judgements = rules_by_claims.judge_rules(found)
        assert {verdicts["2"] for verdicts in judgements.values()} == {verdict}


def test_networks_that_learn_nothing_are_alike(tmp_path):
    found = write_map(tmp_path, ONE_INIT, lambda *_: (0.1, 0.1))
    judgements = rules_by_claims.judge_rules(found)
    assert {tuple(rules_by_claims.holding(v)) for v in judgements.values()} == {("2",)}
    assert rules_by_claims.alike_at_chance(found, judgements) == list(judgements)


def test_claims_that_exclude_each_other():
    tried = [Rule("he", rate, "constant") for rate in RATES[:3]]
    held = (["1a", "2"], ["1a", "4"], ["4"])
    judgements = {
        rule: {n: HOLDS if n in these else FAILS for n in rules_by_claims.NUMBERS}
        for rule, these in zip(tried, held)
    }
    assert rules_by_claims.exclusive(judgements) == [("2", "4")]
    assert rules_by_claims.best(judgements) == (2, tried[:2])


# Choosing


def test_rules_are_chosen_by_accuracy(tmp_path):
    found = write_map(tmp_path, LAPTOP, peaks)
    outcome = map_choice.conclude(found)
    assert rules.mapped_rules(tmp_path) == (
        Rule("he", 0.016, "constant"),
        Rule("he", 0.016, "sqrt"),
    )
    assert outcome == json.loads((tmp_path / "map.json").read_text())
    assert outcome["constant"]["test_accuracy"] == {"normal-b64": 0.55}
    # At 2 the rate falls between 0.002, the best, and 0.004.
    assert outcome["best"]["test_accuracy"]["multigpu-b2"] == pytest.approx(0.55)
    shares = (0.6, 0.9, 1, 0.9, 1, 0.9 * 0.9, 0.9)
    mean = sum(0.1 + 0.5 * share for share in shares) / 7
    assert outcome["best"]["mean_test_accuracy"] == pytest.approx(mean, abs=1e-6)


def test_no_rules_without_all_of_normalBN_at_64(tmp_path):
    def accuracies(bn, batch, init, rate):
        missing = (bn, batch, init, rate) == ("normal", 64, "lecun", RATES[-1])
        return None if missing else peaks(bn, batch, init, rate)

    found = write_map(tmp_path, LAPTOP, accuracies)
    with pytest.raises(NotRun, match="1 of 16 runs of normalBN at 64"):
        map_choice.conclude(found)
    with pytest.raises(UsageError, match="run --only map at laptop scale first"):
        rules.mapped_rules(tmp_path)


def test_no_rules_without_one_that_is_complete(tmp_path):
    found = write_map(
        tmp_path, LAPTOP, lambda bn, *at: None if bn == "none" else peaks(bn, *at)
    )
    with pytest.raises(NotRun, match="every rule"):
        map_choice.conclude(found)


@pytest.mark.parametrize("content", ["{", "[]", '{"constant": {}}'])
def test_a_broken_choice_is_refused(tmp_path, content):
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(UsageError, match="can't read"):
        rules.mapped_rules(tmp_path)


@pytest.mark.parametrize("n_failed", [0, 1])
def test_the_command_ends_with_the_rules(tmp_path, monkeypatch, capsys, n_failed):
    monkeypatch.setattr(runner, "run", lambda plan, *_, **__: plan[:n_failed])
    words = ["--out", str(tmp_path), "--only", "map"]
    write_map(tmp_path, LAPTOP, peaks)
    assert experiments.main(words) == n_failed
    constant, best = capsys.readouterr().out.splitlines()[n_failed:]
    assert constant.startswith(f"constant rule: {Rule('he', 0.016, 'constant')} (")
    assert best.startswith(f"best rule: {Rule('he', 0.016, 'sqrt')} (")
    assert rules.mapped_rules(tmp_path)[1].scaling == "sqrt"


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "run", lambda *_, **__: [])
    assert experiments.main(["--out", str(tmp_path), "--only", "map"]) == 0
    assert "not run: 16 of 16 runs of normalBN at 64" in capsys.readouterr().out
    assert not (tmp_path / "map.json").exists()


# The report


@pytest.fixture
def report_of(monkeypatch):
    """Return a function that writes the report, and returns its text."""
    # Spares the time of drawing what is not of the map.
    monkeypatch.setattr(figures, "draw", lambda results: {})
    return _report_of


def _report_of(out):
    job = jobs.experiment_job(Setting("none", 64), LAPTOP, STANDARD, 0)
    write_run(out, job, (0.5, 0.6))
    assert experiments.main(["--report-only", "--out", str(out)]) == 0
    return (out / "REPRODUCTION.md").read_text()


def test_report_has_the_map(tmp_path, report_of):
    write_map(tmp_path, LAPTOP, lambda *at: DIVERGED if at[3] == 0.064 else peaks(*at))
    text = report_of(tmp_path)
    assert text.count("## The map of learning rates") == 1
    section = text[text.index("## The map") : text.index("## Where the time")]
    assert "112 of 112 runs are there; 14 have diverged" in section
    shown = re.findall(r"!\[.+\]\((.+)\)", section)
    names = ["map-lecun", "map-he", "rules"]
    assert shown == [f"figures/{name}.png" for name in names]
    for path in shown:
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")
    assert len(re.findall(r"^\| (lecun|he) \| ", section, re.M)) == 32
    assert "Most claims hold, " in section
    assert f"constant rule: {Rule('he', 0.016, 'constant')}" in section


def test_report_of_a_part_of_the_map(tmp_path, report_of):
    """One run of each initialization, with which no claim can be judged."""

    def accuracies(bn, batch, init, rate):
        return (0.5, 0.6) if (bn, rate) == ("none", 0.008) else None

    write_map(tmp_path, LAPTOP, accuracies)
    text = report_of(tmp_path)
    assert "2 of 112 runs are there." in text
    assert "figures/map-he.png" in text and "figures/rules.png" not in text
    assert "not chosen yet; not run: 16 of 16 runs of normalBN at 64" in text


def test_report_without_a_map(tmp_path, report_of):
    assert "## The map" not in report_of(tmp_path)
    assert list((tmp_path / "figures").iterdir()) == []
