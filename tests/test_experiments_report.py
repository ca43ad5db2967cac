"""Claims, tables, figures and the report, from the logs of made-up runs."""

import json
import re
import time

import pytest

from chainer_crossbn import experiments
from chainer_crossbn.experiments import (
    claims,
    jobs,
    machine,
    results,
    scaling_runs,
    search,
)
from chainer_crossbn.experiments.definitions import SCALES, Setting
from chainer_crossbn.experiments.definitions import experiments as experiments_of
from chainer_crossbn.experiments.rule import STANDARD

LAPTOP = SCALES["laptop"]
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
def no_committed_search(monkeypatch, tmp_path):
    monkeypatch.setattr(search, "_COMMITTED", tmp_path / "none")


def write_run(out, setting, seed, test, training, seconds=50.0, readings=()):
    """Write a run whose accuracies rise evenly from chance to the end."""
    job = jobs.of(setting, LAPTOP, STANDARD, seed)
    path = job.directory(out)
    path.mkdir(parents=True)
    arguments = {flag.replace("-", "_"): value for flag, value in job.flags}
    record = {
        "program": "chainer_crossbn",
        "arguments": {**arguments, "out": None, "data": None, "name": path.name},
        "n_ranks": job.ranks,
        "n_nodes": 1,
        "device": "CPU",
        "dataset": {"name": "cifar10", "checksum": "c0ffee", "train": 5000},
        "versions": {"mpi": "MPICH Version:      5.0"},
    }
    record["dataset"]["test"] = 2000
    (path / "args.json").write_text(json.dumps(record))
    log = []
    epochs = dict(job.flags)["epoch"]
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
        plan = jobs.planned(experiments_of(LAPTOP), LAPTOP, STANDARD, seed + 1)
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
    return claim.judged(results.Results(LAPTOP, out))


def test_every_claim_of_the_paper_holds_where_the_paper_is_right(tmp_path):
    write_all(tmp_path)
    verdicts = {claim.number: judge(tmp_path, claim.number) for claim in claims.CLAIMS}
    assert {re.match(r"\d", number)[0] for number in verdicts} == set("123456789")
    # By a model that has runs of its own.
    assert verdicts.pop("7").found == ("not run: scaling",)
    for number, judgement in verdicts.items():
        assert judgement.verdict == claims.HOLDS, (number, judgement)


@pytest.mark.parametrize("verdict", [claims.HOLDS, claims.FAILS, claims.UNCLEAR])
def test_claim_7_is_what_the_model_says(tmp_path, monkeypatch, verdict):
    theirs = verdict.replace(" at this scale", "")
    model = {"claim7": {"verdict": theirs, "found": ["the ratio is 1.0 to 1.2"]}}
    monkeypatch.setattr(scaling_runs, "model", lambda *_: model)
    assert judge(tmp_path, "7") == (
        claims.Judgement(verdict, ("the ratio is 1.0 to 1.2",))
    )


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
    assert any(results.READINGS[reading] in line for line in judgement.found)


def test_two_seeds_are_too_few(tmp_path):
    write_all(tmp_path, seeds=(0, 1))
    judgement = judge(tmp_path, "2")
    assert judgement.verdict == claims.UNCLEAR
    assert judgement.found[-1] == "fewer than 3 seeds"


def test_missing_runs_are_named(tmp_path):
    judgement = judge(tmp_path, "4")
    assert judgement.verdict == claims.UNCLEAR
    assert judgement.found == ("not run: multigpu-b2 and normal-b2",)


@pytest.mark.parametrize(
    "paper,verdict", [(110, claims.HOLDS), (88, claims.FAILS), (150, claims.FAILS)]
)
def test_ratio_of_times_is_that_of_multigpu_as_written(tmp_path, paper, verdict):
    write_all(tmp_path, seconds={**SECONDS, "paper": paper})
    judgement = judge(tmp_path, "3")
    assert judgement.verdict == verdict
    assert f"{paper / 80.4:.2f}" in judgement.found[0]
    assert f"{90 / 80.4:.2f}" in judgement.found[1]


def test_higher_rates_are_no_merit_where_noBN_bears_them(tmp_path):
    write_all(tmp_path)
    for rate in (2, 4):
        job = jobs.of(Setting("none", 64, rate=rate), LAPTOP, STANDARD, 0)
        path = job.directory(tmp_path) / "log"
        log = json.loads(path.read_text())
        log[-1]["validation/main/accuracy"] = 0.5
        path.write_text(json.dumps(log))
    assert judge(tmp_path, "9").verdict == claims.FAILS


def test_deviations_that_do_not_fall(tmp_path):
    write_all(tmp_path)
    for path in tmp_path.glob("runs/normal-b16-*/statistics.json"):
        statistics = json.loads(path.read_text())
        statistics["layers"] = [{"mean": 9.0, "variance": 9.0}] * 13
        path.write_text(json.dumps(statistics))
    assert judge(tmp_path, "8").verdict == claims.FAILS


def test_epochs_are_interpolated(tmp_path):
    write_all(tmp_path)
    # noBN rises by 0.45 in 12 epochs, normalBN by 0.7
    shown = judge(tmp_path, "1a").found[0]
    assert f"normalBN takes {12 * 0.45 / 0.7:.1f} " in shown
    assert "noBN 12.0" in shown


# The report


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """All runs, and the report of them."""
    out = tmp_path_factory.mktemp("paper")
    patch = pytest.MonkeyPatch()
    patch.setattr(search, "_COMMITTED", out / "none")
    write_all(out)
    machine.record(out)
    started = time.monotonic()
    assert experiments.main(["--report-only", "--out", str(out)]) == 0
    patch.undo()
    return out, (out / "REPRODUCTION.md").read_text(), time.monotonic() - started


def test_figures_and_tables_are_quick(evaluation):
    assert evaluation[2] < 60


def test_report_begins_with_the_machines(evaluation):
    _, text, _ = evaluation
    first = text.index("## The machine")
    assert first < text.index("## The claims") < text.index("## Figures and tables")
    row = next(line for line in text.splitlines() if line.startswith("| CPU |"))
    assert "E5-2620 v2" in row
    assert f"{machine.describe()['cores']} cores" in row


def test_report_gives_every_claim_its_criterion_and_numbers(evaluation):
    _, text, _ = evaluation
    for claim in claims.CLAIMS:
        verdict = claims.UNCLEAR if claim.number == "7" else claims.HOLDS
        assert f"| {claim.number} | {claim.paper} | **{verdict}** |" in text
        assert f"### Claim {claim.number}: {verdict}" in text
        assert f"Criterion: {claim.criterion}" in text
    assert "$" not in text


def test_report_shows_figures_that_are_there(evaluation):
    out, text, _ = evaluation
    shown = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(shown) == len(set(shown)) == 7
    for path in shown:
        assert (out / path).read_bytes().startswith(b"\x89PNG")


def test_report_has_a_table_of_each_experiment(evaluation):
    _, text, _ = evaluation
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
    out, text, _ = evaluation
    figure = (out / "figures" / "fig3.png").read_bytes()
    assert experiments.main(["--report-only", "--out", str(out)]) == 0
    assert (out / "REPRODUCTION.md").read_text() == text
    assert (out / "figures" / "fig3.png").read_bytes() == figure


def test_notes_are_part_of_the_report(evaluation, tmp_path):
    out, _, _ = evaluation
    (out / "notes.md").write_text("## Why\n\nBecause of $100.\n")
    report = tmp_path / "elsewhere.md"
    words = ["--report-only", "--out", str(out), "--report", str(report)]
    assert experiments.main(words) == 0
    (out / "notes.md").unlink()
    text = report.read_text()
    assert "\n\n## Why\n\nBecause of $100.\n\n## Figures" in text
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
    rules = [
        {
            **{"init": init, "base_rate": 0.01, "scaling": "sqrt"},
            **{"score": score, "test_accuracy": accuracies},
        }
        for init, score in (("lecun", 0.5), ("he", 0.75))
    ]
    outcome = {"scale": "laptop", "rules": rules}
    (tmp_path / "search.json").write_text(json.dumps(outcome))
    assert experiments.main(["--report-only", "--out", str(tmp_path)]) == 0
    lines = (tmp_path / "REPRODUCTION.md").read_text().splitlines()
    place = lines.index("| he | 0.01 | sqrt | 0.750 | 50.0 | 25.0 |")
    assert lines[place + 1].startswith("| lecun |")
