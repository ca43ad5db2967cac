"""Claims, tables, figures and the report, from the logs of made-up runs."""

import json
import re

import pytest

from chainer_crossbn.commands import experiments
from chainer_crossbn.experiments import (
    claims,
    jobs,
    machine,
    results,
    rules,
    scaling_runs,
)
from chainer_crossbn.experiments.definitions import SCALES, Setting
from chainer_crossbn.experiments.definitions import experiments as experiments_of
from chainer_crossbn.experiments.results import Evaluation
from chainer_crossbn.experiments.rules import STANDARD, Rule

LAPTOP, DESKTOP = SCALES["laptop"], SCALES["desktop"]
SEEDS = (0, 1, 2)
# Test and training accuracy as the paper has them, in words: all its claims hold.
PAPER = {
    ("none", 64): (0.50, 0.55),
    ("normal", 64): (0.60, 0.80),
    ("multigpu", 64): (0.60, 0.80),
    ("normal", 2): (0.25, 0.30),
    ("multigpu", 2): (0.59, 0.65),
    ("normal", 4): (0.45, 0.50),
    ("multigpu", 4): (0.58, 0.65),
}
SECONDS = {"none": 74.8, "normal": 80.4, "multigpu": 90.0, "paper": 121.1}


@pytest.fixture(autouse=True)
def no_committed_rules(monkeypatch, tmp_path):
    monkeypatch.setattr(rules, "COMMITTED", tmp_path / "none")


def write_run(out, setting, seed, test, training, seconds=50.0, readings=()):
    """Write a run of the laptop scale."""
    job = jobs.experiment_job(setting, LAPTOP, STANDARD, seed)
    return write_job(out, job, test, training, seconds, readings)


def write_job(out, job, test, training, seconds=50.0, readings=()):
    """Write a run whose accuracies rise evenly from chance to the end."""
    setting = job.setting
    path = job.directory(out)
    path.mkdir(parents=True)
    arguments = {flag.replace("-", "_"): value for flag, value in job.flags}
    record = {
        "program": "chainer_crossbn",
        "arguments": {**arguments, "out": None, "data": None, "name": path.name},
        "n_ranks": job.ranks,
        "n_nodes": 1,
        "device": "CPU",
        "dataset": {"name": "cifar10", "checksum": "c0ffee"},
        "versions": {"mpi": "MPICH Version:      5.0"},
    }
    flags = dict(job.flags)
    record["dataset"]["train"] = flags.get("train-size", 50_000)
    record["dataset"]["test"] = flags.get("test-size", 10_000)
    (path / "args.json").write_text(json.dumps(record))
    log = []
    epochs = flags["epoch"]
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        log.append(
            {
                "epoch": epoch,
                "train_time": 0.9 * seconds * share,
                "elapsed_time": seconds * share,
                "train/main/loss": 2.3 * (1 - training * share),
                "validation/main/loss": 2.3 * (1 - test * share),
                "train/main/accuracy": 0.1 + (training - 0.1) * share,
                "validation/main/accuracy": 0.1 + (test - 0.1) * share,
            }
        )
    (path / "log").write_text(json.dumps(log))
    layers = [
        {"mean": v / setting.batch**0.5, "variance": v / setting.batch**0.5}
        for v in range(1, 14)
    ]
    statistics = {"test": {}, "layers": layers if setting.bn != "none" else []}
    if setting.bn == "normal":
        told = {"averaged": test, "rank0": test, "within": test, **dict(readings)}
        statistics["test"] = {k: {"loss": 1.0, "accuracy": v} for k, v in told.items()}
    (path / "statistics.json").write_text(json.dumps(statistics))
    return path


def write_all(out, changes=(), seeds=SEEDS, seconds=SECONDS, readings=()):
    """Write all runs of the evaluation.

    ``changes`` has pairs of ``(bn, batch)`` and what takes the place of its accuracies:
    a pair, or a function of the seed that returns one.
    """
    accuracies = {**PAPER, **dict(changes)}
    for seed in seeds:
        plan = jobs.planned(experiments_of(LAPTOP), LAPTOP, [STANDARD], seed + 1)
        for job in plan:
            if job.seed != seed:
                continue
            setting = job.setting
            found = accuracies.get((setting.bn, setting.batch), (0.5, 0.5))
            test, training = found(seed) if callable(found) else found
            # noBN bears no rate above the standard one, the others up to 4 times that.
            if setting.rate > (1 if setting.bn == "none" else 4):
                test = training = 0.1
            wall = seconds.get(setting.bn, 50.0) if setting.batch == 64 else 50.0
            write_run(out, setting, seed, test, training, wall, readings)


def judge(out, number):
    (claim,) = [claim for claim in claims.CLAIMS if claim.number == number]
    return claim.judge_finished(Evaluation(LAPTOP, out).headline)


def test_every_claim_of_the_paper_holds_where_the_paper_is_right(tmp_path):
    write_all(tmp_path)
    verdicts = {claim.number: judge(tmp_path, claim.number) for claim in claims.CLAIMS}
    assert {re.match(r"\d", number)[0] for number in verdicts} == set("123456789")
    # By a model that has runs of its own.
    assert verdicts.pop("7").numbers == ("not run: scaling",)
    for number, judgement in verdicts.items():
        assert judgement.verdict == claims.HOLDS, (number, judgement)


@pytest.mark.parametrize("verdict", [claims.HOLDS, claims.FAILS, claims.UNCLEAR])
def test_claim_7_is_what_the_model_says(tmp_path, monkeypatch, verdict):
    theirs = verdict.replace(" at this scale", "")
    claim = {"verdict": theirs, "deciding": "1.0 to 1.2", "found": ["the ratio is"]}
    monkeypatch.setattr(scaling_runs, "model", lambda *_: {"claim7": claim})
    expected = claims.Judgement(verdict, "1.0 to 1.2", ("the ratio is",))
    assert judge(tmp_path, "7") == expected


def test_claim_7_without_all_reduces(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling_runs, "model", lambda *_: {"claim7": None})
    assert judge(tmp_path, "7").verdict == claims.UNCLEAR


WORSE = 0.05


@pytest.mark.parametrize(
    "number,changes",
    [
        ("1a", {("none", 64): (0.5, 0.9)}),
        ("1b", {("none", 64): (0.6, 0.55)}),
        ("2", {("multigpu", 64): (0.65, 0.80)}),
        ("2", {("multigpu", 64): (0.60, 0.70)}),
        ("4", {("normal", 2): (0.58, 0.30)}),
        ("4", {("normal", 2): (0.25, 0.65)}),
        ("4", {("normal", 2): (0.1, 0.05), ("multigpu", 2): (0.2, 0.12)}),
        ("5", {("multigpu", 2): (0.5, 0.65)}),
        ("5", {("multigpu", 2): (0.59, 0.79)}),
        ("6a", {("normal", 4): (0.59, 0.50)}),
        ("6a", {("normal", 4): (0.45, 0.90)}),
        ("6a", {("normal", 4): (0.11, 0.2)}),
        ("6b", {("multigpu", 4): (0.44, 0.65)}),
        ("9", {("none", 64): (0.11, 0.11)}),
    ],
)
def test_a_claim_does_not_hold(tmp_path, number, changes):
    write_all(tmp_path, changes)
    # Where a network learns nothing at any rate, nothing can be told of claim 9.
    verdict = claims.UNCLEAR if number == "9" else claims.FAILS
    assert judge(tmp_path, number).verdict == verdict


@pytest.mark.parametrize(
    "number,pair",
    [("2", ("multigpu", 64)), ("4", ("multigpu", 2)), ("6b", ("multigpu", 4))],
)
def test_seeds_that_disagree_tell_nothing(tmp_path, number, pair):
    """The median differs by more than the margin, but one seed the other way."""
    other = {"2": ("normal", 64), "4": ("normal", 2), "6b": ("normal", 4)}[number]
    base, training = PAPER[other]
    shifts = (0.1, 0.1, -0.1)
    training = training if number == "2" else PAPER[pair][1]
    write_all(tmp_path, {pair: lambda seed: (base + shifts[seed], training)})
    assert judge(tmp_path, number).verdict == claims.UNCLEAR


@pytest.mark.parametrize("number", ["4", "5", "6b"])
@pytest.mark.parametrize("reading", ["rank0", "within"])
def test_a_verdict_must_hold_under_each_reading(tmp_path, number, reading):
    # Under this one normalBN is as good as multigpuBN at 2 and 4, and worse at 64.
    value = 0.5 if number == "5" else 0.6
    write_all(tmp_path, readings={reading: value})
    judgement = judge(tmp_path, number)
    assert judgement.verdict == claims.FAILS
    assert any(results.READINGS[reading] in line for line in judgement.numbers)


def test_two_seeds_are_too_few(tmp_path):
    write_all(tmp_path, seeds=(0, 1))
    judgement = judge(tmp_path, "2")
    assert judgement.verdict == claims.UNCLEAR
    assert judgement.numbers[-1] == judgement.deciding == "fewer than 3 seeds"


def test_missing_runs_are_named(tmp_path):
    judgement = judge(tmp_path, "4")
    assert judgement.verdict == claims.UNCLEAR
    assert judgement.numbers == ("not run: multigpu-b2 and normal-b2",)


@pytest.mark.parametrize(
    "paper,verdict", [(110, claims.HOLDS), (88, claims.FAILS), (150, claims.FAILS)]
)
def test_ratio_of_times_is_that_of_multigpu_as_written(tmp_path, paper, verdict):
    write_all(tmp_path, seconds={**SECONDS, "paper": paper})
    judgement = judge(tmp_path, "3")
    assert judgement.verdict == verdict
    assert f"{paper / 80.4:.2f}" in judgement.numbers[0]
    assert f"{90 / 80.4:.2f}" in judgement.numbers[1]
    of_time = "times normalBN's time, in the paper 1.51"
    assert judgement.deciding == f"{paper / 80.4:.2f} {of_time}"


@pytest.mark.parametrize("ours,before", [(90, claims.FAILS), (120, claims.HOLDS)])
def test_the_criterion_that_has_changed_is_shown(tmp_path, ours, before):
    write_all(tmp_path, seconds={**SECONDS, "multigpu": ours})
    line = judge(tmp_path, "3").numbers[-1]
    assert line.startswith("the criterion has changed, because the claim is about ")
    assert f"gives the verdict *{before}* ({ours / 80.4:.2f} times" in line
    assert f"gives *{claims.HOLDS}* (1.51 times" in line


# The numbers that decide


def test_numbers_that_decide_where_all_holds(tmp_path):
    write_all(tmp_path)
    found = {claim.number: judge(tmp_path, claim.number) for claim in claims.CLAIMS}
    test, gap = "in the test; difference", "margin 3.2"
    assert {number: judgement.deciding for number, judgement in found.items()} == {
        "1a": "7.7 epochs (normalBN) against 12.0 (noBN) to the same training accuracy",
        "1b": f"60.0 % (normalBN) against 50.0 % (noBN) {test} +10.0, {gap}",
        "2": f"60.0 % (normalBN) against 60.0 % (multigpuBN) {test} +0.0, {gap}",
        "3": "1.51 times normalBN's time, in the paper 1.51",
        "4": f"59.0 % (multigpuBN) against 25.0 % (normalBN) {test} +34.0, {gap}",
        "5": "59.0 % (multigpuBN at 2) against 60.0 % (normalBN at 64) "
        f"{test} -1.0, {gap}",
        "6a": f"60.0 % (at 64) against 45.0 % (at 4) {test} +15.0, {gap}",
        "6b": f"58.0 % (multigpuBN) against 45.0 % (normalBN) {test} +13.0, {gap}",
        "7": "not run",
        "8": "the means are 5.7 times as far from those of all ranks at 2 as at 64",
        "9": "up to 4 times the standard rate (normalBN) against 1 (noBN)",
    }


@pytest.mark.parametrize(
    "number,changes,deciding",
    [
        ("1a", {("multigpu", 64): (0.6, 0.3)}, "to the same training accuracy"),
        ("1b", {("multigpu", 64): (0.4, 0.8)}, "40.0 % (multigpuBN) against 50.0 %"),
        (
            "2",
            {("multigpu", 64): (0.6, 0.7)},
            "70.0 % (multigpuBN) in training; difference +10.0",
        ),
        (
            "4",
            {("normal", 2): (0.25, 0.65)},
            "65.0 % (normalBN) in training; difference +0.0",
        ),
        (
            "4",
            {("normal", 2): (0.1, 0.05), ("multigpu", 2): (0.2, 0.12)},
            "multigpuBN 12.0 % in training, chance 10%",
        ),
        ("5", {("multigpu", 2): (0.59, 0.79)}, "80.0 % (normalBN at 64) in training"),
        (
            "6a",
            {("normal", 4): (0.45, 0.90)},
            "(at 64) against 10.5 (at 4) to the same",
        ),
    ],
)
def test_the_number_of_the_part_that_fails_decides(tmp_path, number, changes, deciding):
    write_all(tmp_path, changes)
    judgement = judge(tmp_path, number)
    assert judgement.verdict == claims.FAILS
    assert deciding in judgement.deciding


def test_the_reading_that_fails_decides(tmp_path):
    write_all(tmp_path, readings={"rank0": 0.6})
    assert (
        "in the test (rank 0's own); difference -1.0," in judge(tmp_path, "4").deciding
    )


def test_higher_rates_are_no_merit_where_noBN_bears_them(tmp_path):
    write_all(tmp_path)
    for rate in (2, 4):
        job = jobs.experiment_job(Setting("none", 64, rate=rate), LAPTOP, STANDARD, 0)
        path = job.directory(tmp_path) / "log"
        log = json.loads(path.read_text())
        log[-1]["validation/main/accuracy"] = 0.5
        path.write_text(json.dumps(log))
    judgement = judge(tmp_path, "9")
    assert judgement.verdict == claims.FAILS
    assert (
        judgement.deciding
        == "up to 4 times the standard rate (normalBN) against 4 (noBN)"
    )


def test_deviations_that_do_not_fall(tmp_path):
    write_all(tmp_path)
    for path in tmp_path.glob("runs/normal-b16-*/statistics.json"):
        statistics = json.loads(path.read_text())
        statistics["layers"] = [{"mean": 9.0, "variance": 9.0}] * 13
        path.write_text(json.dumps(statistics))
    judgement = judge(tmp_path, "8")
    assert judgement.verdict == claims.FAILS
    assert re.fullmatch(
        r"distance of the means .* at 8, 9.000 at 16", judgement.deciding
    )


def test_epochs_are_interpolated(tmp_path):
    write_all(tmp_path)
    # noBN rises by 0.45 in 12 epochs, normalBN by 0.7
    shown = judge(tmp_path, "1a").numbers[0]
    assert f"normalBN takes {12 * 0.45 / 0.7:.1f} " in shown
    assert "noBN 12.0" in shown


# The report


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """All runs, and the report of them."""
    out = tmp_path_factory.mktemp("paper")
    patch = pytest.MonkeyPatch()
    patch.setattr(rules, "COMMITTED", out / "none")
    write_all(out)
    machine.record(out)
    assert experiments.main(["--report-only", "--out", str(out)]) == 0
    patch.undo()
    return out, (out / "REPRODUCTION.md").read_text()


def test_report_opens_with_the_result(evaluation):
    _, text = evaluation
    opening, table, figure, *_ = re.split(r"^(?=\| claim|!\[)", text, flags=re.M)
    words = " ".join(opening.split())
    for word in (
        "noBN has no",
        "scale `laptop`",
        "5,000 training",
        "8 ranks",
        "no GPU",
    ):
        assert word in words
    assert f"{machine.describe()['cores']} cores of " in words
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert rows[0] == "| claim | the paper | verdict | the number that decides |"
    assert len(rows) == 2 + len(claims.CLAIMS)
    assert figure.startswith("![The main result](figures/sweep.png)\n")
    assert "##" not in opening.replace("# The paper, reproduced", "") + table
    headings = re.findall(r"^## (.*)", text, re.M)
    assert headings[:3] == ["The claims", "The machine", "Figures and tables"]


def test_report_has_the_machines(evaluation):
    _, text = evaluation
    row = next(line for line in text.splitlines() if line.startswith("| CPU |"))
    assert "E5-2620 v2" in row
    assert f"{machine.describe()['cores']} cores" in row


def test_report_gives_every_claim_its_criterion_and_numbers(evaluation):
    _, text = evaluation
    for claim in claims.CLAIMS:
        verdict = claims.UNCLEAR if claim.number == "7" else claims.HOLDS
        assert f"| {claim.number} | {claim.paper} | **{verdict}** |" in text
        assert f"### Claim {claim.number}: {verdict}" in text
        assert f"Criterion: {claim.criterion}" in text
    assert "$" not in text


def test_report_shows_figures_that_are_there(evaluation):
    out, text = evaluation
    shown = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(shown) == len(set(shown)) == 7
    for path in shown:
        assert (out / path).read_bytes().startswith(b"\x89PNG")


def test_report_has_a_table_of_each_experiment(evaluation):
    _, text = evaluation
    lines = text.splitlines()
    for experiment in experiments_of(LAPTOP):
        # Profiles have a section of their own.
        assert (f"### {experiment.title}" in lines) == (experiment.name != "profile")
    name = "multigpuBN as written"
    row = next(line for line in lines if line.startswith(f"| {name} | 3 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "121.1 (121.1–121.1)"
    assert cells[3:5] == ["1.506", "1.619"]
    assert cells[7:] == ["1211", "1.506", "1.619"]
    assert "| noBN | 50.0 | 50.0 | 50.0 (50.0–50.0) | 10.0 | 10.0 | 10.0 |" in lines


def test_report_again_is_the_same(evaluation):
    out, text = evaluation
    figure = (out / "figures" / "fig3.png").read_bytes()
    assert experiments.main(["--report-only", "--out", str(out)]) == 0
    assert (out / "REPRODUCTION.md").read_text() == text
    assert (out / "figures" / "fig3.png").read_bytes() == figure


def test_notes_are_part_of_the_report(evaluation, tmp_path):
    out, _ = evaluation
    (out / "notes.md").write_text("## Why\n\nBecause of $100.\n")
    report = tmp_path / "elsewhere.md"
    words = ["--report-only", "--out", str(out), "--report", str(report)]
    assert experiments.main(words) == 0
    (out / "notes.md").unlink()
    text = report.read_text()
    assert "\n\n## Why\n\nBecause of $100.\n\n## The machine" in text
    (first, *_) = re.findall(r"!\[.+\]\((.+)\)", text)
    assert (tmp_path / first).is_file()


def test_a_report_of_nothing(tmp_path, capsys):
    assert experiments.main(["--report-only", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no finished run of scale laptop" in error
    assert list(tmp_path.iterdir()) == []


def test_a_users_file_is_not_overwritten(tmp_path, capsys):
    write_run(tmp_path / "out", Setting("none", 64), 0, 0.5, 0.5)
    path = tmp_path / "mine.md"
    path.write_text("my own words")
    words = ["--report-only", "--out", str(tmp_path / "out"), "--report", str(path)]
    assert experiments.main(words) == 2
    assert "is not a report" in capsys.readouterr().err
    assert path.read_text() == "my own words"
    assert not (tmp_path / "out" / "figures").exists()


def test_search_grid_is_in_the_report(tmp_path):
    write_run(tmp_path, Setting("none", 64), 0, 0.5, 0.5)
    accuracies = {"none-b64": 0.5, "multigpu-b2": 0.25}
    entries = [
        {
            **{"init": init, "base_rate": 0.01, "scaling": "sqrt"},
            **{"score": score, "test_accuracy": accuracies},
        }
        for init, score in (("lecun", 0.5), ("he", 0.75))
    ]
    outcome = {"scale": "laptop", "rules": entries}
    (tmp_path / "search.json").write_text(json.dumps(outcome))
    assert experiments.main(["--report-only", "--out", str(tmp_path)]) == 0
    lines = (tmp_path / "REPRODUCTION.md").read_text().splitlines()
    place = lines.index("| he | 0.01 | sqrt | 0.750 | 50.0 | 25.0 |")
    assert lines[place + 1].startswith("| lecun |")


# A report under two rules, with a quick check

CONSTANT, BEST = Rule("he", 0.016, "constant"), Rule("he", 0.016, "sqrt")
UNDER_BEST = {**PAPER, ("normal", 2): (0.58, 0.60)}  # claim 4 does not hold
AT_QUICK_CHECK = {("multigpu", 64): (0.65, 0.80)}  # claim 2 does not hold


def write_desktop(out, seeds=SEEDS, timed=False):
    """Write the runs of the desktop scale, and the rules."""
    out.mkdir(parents=True)
    chosen = {"constant": vars(CONSTANT), "best": vars(BEST)}
    (out / "map.json").write_text(json.dumps(chosen))
    every = experiments_of(DESKTOP)
    of_constant = {job.name for job in jobs.planned(every, DESKTOP, [CONSTANT], 3)}
    for job in jobs.planned(every, DESKTOP, [CONSTANT, BEST], len(seeds)):
        accuracies = PAPER if job.name in of_constant else UNDER_BEST
        at = job.setting.bn, job.setting.batch
        if timed or not job.timed:
            write_job(out, job, *accuracies.get(at, (0.5, 0.5)), 80.4)


def write_map(out, usable):
    """Write batch size 64 of the map; a network learns up to its usable rate."""
    for bn, highest in usable.items():
        for rate in LAPTOP.map.rates:
            found = (0.5, 0.6) if rate <= highest else (0.1, 0.1)
            write_job(out, jobs.map_job(bn, 64, "he", rate, LAPTOP), *found)


@pytest.fixture(scope="module")
def two_rules(tmp_path_factory):
    """A report at desktop scale with a quick check; the directories and the text."""
    root = tmp_path_factory.mktemp("rules")
    quick, out = root / "laptop", root / "desktop"
    patch = pytest.MonkeyPatch()
    patch.setattr(rules, "COMMITTED", root / "none")
    claim = {"verdict": "can't be told", "deciding": "1.0 to 1.2", "found": []}
    model = {"claim7": claim, "observations": []}
    patch.setattr(scaling_runs, "model", lambda *_: model)
    write_all(quick, AT_QUICK_CHECK)
    write_map(quick, {"none": 0.002, "normal": 0.016, "multigpu": 0.032})
    write_run(quick, Setting("none", 2, (("train-size", 2_500),)), 0, 0.5, 0.5)
    (quick / "REPRODUCTION.md").write_text("that of the quick check")
    write_desktop(out)
    words = ["--scale", "desktop", "--out", str(out), "--quick-check", str(quick)]
    assert experiments.main([*words, "--report-only"]) == 0
    patch.undo()
    return out, quick, (out / "REPRODUCTION.md").read_text()


def row(text, number):
    """Return the cells of a claim in the table of claims, but for what it says."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {number} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][2:]


def test_two_rules_have_a_verdict_each(two_rules):
    _, _, text = two_rules
    head = "| claim | the paper | constant rule | best rule | quick check |"
    assert head in text.splitlines()
    assert row(text, "4") == [
        "**holds**: 59.0 % (multigpuBN) against 25.0 % (normalBN) in the test; "
        "difference +34.0, margin 1.4",
        "**does not hold**: 59.0 % (multigpuBN) against 58.0 % (normalBN) in the test; "
        "difference +1.0, margin 1.4",
        "holds",
    ]
    assert "### Claim 4: holds (constant rule), does not hold (best rule)\n" in text
    section = text[text.index("### Claim 4") : text.index("### Claim 5")]
    constant, best = section.split("Best rule: **does not hold**")
    assert "Constant rule: **holds**" in constant
    assert "normalBN at 2 25.0 " in constant and "normalBN at 2 58.0 " in best
    # At batch size 64 both rules share all runs.
    assert row(text, "2")[1:] == ["(the same)", "does not hold"]
    section = text[text.index("### Claim 2: holds\n") : text.index("### Claim 3")]
    assert "rule: " not in section


def test_what_a_quick_check_gives(two_rules):
    _, quick, text = two_rules
    number = "1.51 times normalBN's time, in the paper 1.51"
    assert row(text, "3") == [f"**holds**: {number}", "(the same)", "holds"]
    assert row(text, "7")[0] == f"**{claims.UNCLEAR}**: 1.0 to 1.2"
    assert "the times are those of the laptop scale" in text
    table = text[text.index("### Table 2") : text.index("### Batch sizes")]
    assert "These are runs of the quick check." in table and "121.1 (" in table
    section = text[text.index("## The map of") : text.index("## Where the time")]
    assert "24 of 112 runs are there" in section
    link = f"(../{quick.name}/REPRODUCTION.md#beyond-the-paper)"
    assert link in text


def test_claim_9_is_judged_by_the_map(two_rules):
    _, _, text = two_rules
    cell = "**holds**: rates up to 0.016 (normalBN) against 0.002 (noBN)"
    assert row(text, "9") == [cell, "(the same)", "holds"]
    section = text[text.index("### Claim 9") : text.index("## The machine")]
    assert "- multigpuBN up to 0.032 (best test accuracy 50.0%)" in section
    assert "those of the map, with he initialization, at batch size 64" in section


@pytest.mark.parametrize(
    "usable,verdict",
    [
        ({"none": 0.004, "normal": 0.004, "multigpu": 0.064}, claims.FAILS),
        ({"none": 0.064, "normal": 0.064, "multigpu": 0.064}, claims.UNCLEAR),
        ({"none": 0.004, "normal": 0.064}, claims.UNCLEAR),
    ],
)
def test_the_map_against_claim_9(tmp_path, usable, verdict):
    write_desktop(tmp_path / "desktop", seeds=(0,))
    write_map(tmp_path / "laptop", usable)
    quick = Evaluation(LAPTOP, tmp_path / "laptop")
    found = Evaluation(DESKTOP, tmp_path / "desktop", quick)
    (claim,) = [claim for claim in claims.CLAIMS if claim.number == "9"]
    judgements = [claim.judge_finished(r) for r in found.results.values()]
    assert {judgement.verdict for judgement in judgements} == {verdict}


def test_figures_and_tables_have_a_part_for_each_rule(two_rules):
    out, _, text = two_rules
    fig3 = text[text.index("### Fig. 3") : text.index("### Fig. 4")]
    fig4 = text[text.index("### Fig. 4") : text.index("### Fig. 5")]
    assert "####" not in fig3  # at batch size 64 both rules share all runs
    assert re.findall("^#### .*", fig4, re.M) == [
        "#### Constant rule",
        "#### Best rule",
    ]
    assert re.findall(r"\((figures/.*)\)", fig4) == [
        "figures/fig4.png",
        "figures/fig4-best.png",
    ]
    constant, best = fig4.split("#### Best rule")
    assert "| normalBN | 2 | 0.016 | 3 | 25.0 (" in constant
    assert "| normalBN | 2 | 0.002828 | 3 | 58.0 (" in best
    shown = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(shown) == len(set(shown))
    for path in shown:
        assert (out / path).is_file(), path
    assert shown[0] == "figures/sweep.png" and "figures/sweep-best.png" in shown


def test_opening_tells_the_rules_and_the_quick_check(two_rules):
    _, _, text = two_rules
    opening = " ".join(text[: text.index("| claim |")].split())
    assert "scale `desktop`" in opening and "50,000 training" in opening
    assert f"*constant* rule ({CONSTANT})" in opening
    assert f"*best* rule ({BEST})" in opening
    assert "quick check is the same evaluation at the scale `laptop`: 5,000" in opening


def test_desktop_scale_alone(tmp_path):
    """Its own times count, and what it does not have is said to be missing."""
    out = tmp_path / "desktop"
    write_desktop(out, timed=True)
    words = ["--scale", "desktop", "--out", str(out), "--report-only"]
    assert experiments.main(words) == 0
    text = (out / "REPRODUCTION.md").read_text()
    assert "| claim | the paper | constant rule | best rule |" in text.splitlines()
    of_time = "1.00 times normalBN's time, in the paper 1.51"
    assert row(text, "3") == [f"**does not hold**: {of_time}", "(the same)"]
    assert row(text, "7") == ["not run", "(the same)"]
    assert row(text, "9") == ["not run", "(the same)"]
    assert "## The map" not in text and "## Beyond" not in text
    assert "quick check" not in text


def test_a_quick_check_without_runs(tmp_path, capsys):
    write_desktop(tmp_path / "desktop", seeds=(0,))
    words = ["--scale", "desktop", "--out", str(tmp_path / "desktop"), "--report-only"]
    assert experiments.main([*words, "--quick-check", str(tmp_path)]) == 2
    assert "no finished run of scale laptop in" in capsys.readouterr().err
