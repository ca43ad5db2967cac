"""``python -m chainer_crossbn experiments`` as a user sees it."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest
from mpi import ROOT

from chainer_crossbn.commands import experiments
from chainer_crossbn.experiments import (
    definitions,
    figures,
    jobs,
    records,
    rules,
    search,
)
from chainer_crossbn.experiments.rules import STANDARD, Rule
from chainer_crossbn.runs.files import lock_directory

SMOKE = definitions.SCALES["smoke"]
LAPTOP = definitions.SCALES["laptop"]
DESKTOP = definitions.SCALES["desktop"]
EXPERIMENTS = ["fig3", "fig4", "fig5", "table2", "sweep", "rates", "profile"]
STATISTICS = "statistics.json"
BEYOND = ["variants", "rates2", "layers", "comparators"]
BEYOND += ["resnet110", "googlenet", "resnet110-layers", "sizes", "large"]

# By the rule that comes with the package.
NONE, NORMAL = (f"runs/{bn}-b64-he-lr0.0025-s0" for bn in ("none", "normal"))

# Stands in for train_cifar.py: writes what that writes, at once.
FAKE = """
import json, os, sys, time

given = iter(sys.argv[1:])
arguments = {{"data": "/home/somebody/cifar"}}
for word in given:
    if word not in ("--no-model", "--profile", "--allow-nan"):
        value = next(given)
        name = word[2:].replace("-", "_")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
name = arguments["name"]
path = os.path.join(arguments["out"], name)
os.makedirs(path)
with open(os.path.join(path, "args.json"), "w") as file:
    json.dump({{"program": "chainer_crossbn", "arguments": arguments, "n_ranks": 2,
               "virtual_ranks": arguments.get("virtual_ranks", 1),
               "ranks": [{{"host": "secret", "pid": 1}}], "device": "CPU",
               "dataset": {{"name": "synthetic", "train": 128, "test": 20}},
               "versions": {{"mpi": "none"}}}}, file)
{failure}
accuracy = 0.25 if arguments["init"] == "he" else 0.5
log = [{{"epoch": e, "train_time": e, "elapsed_time": e + 0.5, "train/main/loss": 1.0,
        "validation/main/loss": 1.0, "train/main/accuracy": 0.5,
        "validation/main/accuracy": accuracy}}
       for e in range(1, arguments["epoch"] + 1)]
with open(os.path.join(path, "log"), "w") as file:
    json.dump(log, file)
with open(os.path.join(path, "statistics.json"), "w") as file:
    json.dump({{"test": {{}}, "layers": []}}, file)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return a function that puts a script in the place of training.

    Its argument is code for the middle of it.
    """
    launcher = tmp_path / "mpiexec"
    launcher.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    launcher.chmod(0o755)
    script = tmp_path / "fake.py"
    monkeypatch.setattr(jobs, "_mpiexec", lambda: str(launcher))
    monkeypatch.setattr(jobs, "_SCRIPT", script)
    # Spares the time of drawing.
    monkeypatch.setattr(figures, "draw", lambda results: {})

    def put(failure=""):
        script.write_text(FAKE.format(failure=failure))

    put()
    return put


@pytest.fixture
def out(tmp_path):
    return tmp_path / "result"


def main(out, *words):
    # One run after the other, so that what is printed has an order.
    command = ["--scale", "smoke", "--out", str(out), *words]
    return experiments.main([*command, "--jobs", "1"])


@contextlib.contextmanager
def locked(out):
    """Hold the lock as another runner does."""
    out.mkdir(exist_ok=True)
    descriptor = lock_directory(out, "it is locked")
    yield
    os.close(descriptor)


def files(root):
    return {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}


def one_error(capsys, *words):
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("chainer_crossbn experiments: error: ")
    assert shown.err.count("\n") == 1
    for word in words:
        assert word in shown.err
    return True


# Definitions


@pytest.mark.parametrize("scale", definitions.SCALES.values(), ids=lambda s: s.name)
def test_runs_differ_in_name_exactly_where_they_differ(scale):
    plan = jobs.planned(definitions.every(scale), scale, [STANDARD], seeds=2)
    different = {(job.flags, job.timed) for job in plan}
    assert len(different) == len({job.name for job in plan}) == len(plan)


def test_runs_are_shared_and_seeds_come_in_turn():
    fig3, fig4 = definitions.experiments(LAPTOP)[:2]
    plan = jobs.planned([fig3, fig4], LAPTOP, [STANDARD], seeds=2)
    first = ["none-b64", "normal-b64", "multigpu-b64", "multigpu-b2", "normal-b2"]
    rates = {"b64": "he-lr0.01", "b2": "he-lr0.001768"}
    assert [j.name for j in plan] == [
        f"runs/{words}-{rates[words.split('-')[1]]}-s{seed}"
        for seed in (0, 1)
        for words in first
    ]


def test_compared_runs_have_the_same_epochs():
    plan = jobs.planned(definitions.experiments(LAPTOP), LAPTOP, [STANDARD], seeds=3)
    found = {(job.timed, dict(job.flags)["epoch"]) for job in plan}
    assert found == {(False, LAPTOP.epochs), (True, LAPTOP.timed_epochs)}
    assert {dict(job.flags)["train-size"] for job in plan} == {LAPTOP.train_size}


def test_learning_rate_follows_the_global_batch():
    for scaling, rate in (("sqrt", 0.02 / 32**0.5), ("linear", 0.02 / 32)):
        rule = Rule("lecun", 0.02, scaling)
        job = jobs.experiment_job(definitions.Setting("normal", 2), LAPTOP, rule, 0)
        assert dict(job.flags)["lr"] == pytest.approx(rate, rel=1e-3)
        assert dict(job.flags)["init"] == "lecun"


def test_learning_rates_are_multiples_of_the_standard_one():
    (rates,) = [e for e in definitions.experiments(LAPTOP) if e.name == "rates"]
    plan = jobs.planned([rates], LAPTOP, [STANDARD], seeds=3)
    found = {dict(job.flags)["lr"] for job in plan}
    assert found == {0.0025, 0.005, 0.01, 0.02, 0.04, 0.08}
    # one of them is the run of fig3
    assert "runs/none-b64-he-lr0.01-s0" in {job.name for job in plan}


# Two rules

CONSTANT, BEST = Rule("he", 0.016, "constant"), Rule("he", 0.016, "sqrt")


def write_rules(out, constant=CONSTANT, best=BEST):
    """Write what a map has chosen, as far as it is read."""
    out.mkdir(parents=True, exist_ok=True)
    chosen = {"constant": vars(constant), "best": vars(best)}
    (out / "map.json").write_text(json.dumps(chosen))


@pytest.fixture
def no_committed_rules(monkeypatch, tmp_path):
    monkeypatch.setattr(rules, "COMMITTED", tmp_path / "none")


def desktop(out, *words):
    return experiments.main(["--scale", "desktop", "--out", str(out), *words])


def planned_at_desktop(out, capsys, *words):
    """Return pairs of a run's name and its learning rate, in their order."""
    assert desktop(out, "--dry-run", *words) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    return [
        (
            command[command.index("--name") + 1],
            float(command[command.index("--lr") + 1]),
        )
        for command in commands
    ]


def test_a_scale_under_two_rules_runs_one_after_the_other(
    out, capsys, no_committed_rules
):
    write_rules(out)
    words = "--only", "fig4", "--seeds", "2"
    assert [name for name, _ in planned_at_desktop(out, capsys, *words)] == [
        "normal-b64-he-lr0.016-s0",
        "multigpu-b2-he-lr0.016-s0",
        "normal-b2-he-lr0.016-s0",
        "normal-b64-he-lr0.016-s1",
        "multigpu-b2-he-lr0.016-s1",
        "normal-b2-he-lr0.016-s1",
        # The run of batch size 64 is the same.
        "multigpu-b2-he-lr0.002828-s0",
        "normal-b2-he-lr0.002828-s0",
        "multigpu-b2-he-lr0.002828-s1",
        "normal-b2-he-lr0.002828-s1",
    ]


def test_a_scale_under_two_rules_has_each_run_once(out, capsys, no_committed_rules):
    write_rules(out, best=Rule("lecun", 0.032, "sqrt"))
    plan = planned_at_desktop(out, capsys)
    names = [name for name, _ in plan]
    assert len(set(names)) == len(names) == 2 * 27 + 14
    timed = [rate for name, rate in plan if "-lr" not in name]
    assert timed == [0.016] * 14


def test_equal_rules_are_one(out, capsys, no_committed_rules):
    write_rules(out, best=CONSTANT)
    assert len(planned_at_desktop(out, capsys)) == 27 + 14


def test_rules_that_come_with_the_package_are_the_last_resort(
    out, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(rules, "COMMITTED", tmp_path)
    write_rules(tmp_path, constant=Rule("he", 0.5, "constant"))
    words = "--only", "fig3", "--seeds", "1"
    assert planned_at_desktop(out, capsys, *words)[0][1] == 0.5
    write_rules(out)
    assert planned_at_desktop(out, capsys, *words)[0][1] == 0.016


@pytest.mark.parametrize("words", [("--dry-run",), ("--list",), ("--report-only",)])
def test_two_rules_that_are_missing(out, capsys, no_committed_rules, words):
    assert desktop(out, *words) == 2
    assert one_error(capsys, "run --only map at laptop scale first: no ", str(out))
    assert not out.exists()


def test_list_at_desktop_scale(out, capsys, no_committed_rules):
    write_rules(out)
    assert desktop(out, "--list") == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == (f"scale desktop, constant rule: {CONSTANT}; best rule: {BEST}")
    assert [line.split()[0] for line in lines] == [
        *("fig3", "fig4", "fig5", "table2", "sweep", "profile"),
        *("variants", "layers", "comparators", "(paper)"),
    ]


@pytest.mark.parametrize(
    "name", ["map", "search", "rates", "rates2", "scaling", "large"]
)
def test_what_desktop_scale_does_not_have(out, capsys, name):
    assert desktop(out, "--only", name) == 2
    message = f"--only: the desktop scale has no {name}; run it at laptop scale"
    assert one_error(capsys, message)
    assert not out.exists()


# The command


def test_list(out, capsys):
    assert main(out, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("scale smoke, ")
    assert [line.split()[0] for line in lines[1:]] == [
        *("search", *EXPERIMENTS, "scaling", "map", *BEYOND, "(paper)"),
    ]
    assert all("left" in line for line in lines[1:])
    assert not out.exists()


def test_dry_run_prints_what_a_shell_runs(tmp_path, capsys):
    out = tmp_path / "my result"
    data = tmp_path / "it's data"
    data.mkdir()
    words = ["--scale", "laptop", "--data", str(data), "--out", str(out)]
    assert experiments.main([*words, "--only", "table2", "--dry-run"]) == 0
    for line in capsys.readouterr().out.splitlines():
        # Times are those of a process for each rank.
        assert shlex.split(line)[1:3] == ["-n", "8"] and "--virtual" not in line
    assert experiments.main([*words, "--only", "fig3", "--dry-run"]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert len(commands) == 9
    for command in commands:
        assert command[1:3] == ["-n", "1"]
        assert command[command.index("--virtual-ranks") + 1] == "8"
        assert command[4].endswith("train_cifar.py")
        assert command[command.index("--data") + 1] == str(data)
        assert command[command.index("--out") + 1] == str(out / "runs")
    assert not out.exists()


def test_job_scripts(out, capsys):
    for scheduler, mark in (("slurm", "#SBATCH --ntasks=2"), ("age", "#$ -cwd")):
        assert main(out, "--only", "fig3", "--print-jobs", scheduler) == 0
        scripts = re.split(r"^(?=#!)", capsys.readouterr().out, flags=re.M)[1:]
        assert len(scripts) == 3
        for script in scripts:
            assert script.startswith("#!/bin/sh\n")
            assert mark in script
            assert len(re.findall("^[^#].*train_cifar.py --bn ", script, re.M)) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "words,message",
    [
        (("--only", "fig6"), "no experiment 'fig6'; there are fig3, fig4"),
        (("--only", "search", "fig3"), "--only search goes alone"),
        (("--seeds", "0"), "'0' is not a whole number at least 1"),
        (("--scale", "huge"), "invalid choice: 'huge'"),
        (("--data", "."), "makes its own images"),
        (("--scale", "laptop", "--data", "none/such"), "no file or directory none/s"),
        (("--print-jobs", "pbs"), "invalid choice: 'pbs'"),
        (("--dry-run", "--list"), "not allowed with"),
        (("--quick-check", "."), "--quick-check goes with --scale desktop"),
        (("--scale", "desktop", "--quick-check", "none/such"), "no directory none/s"),
        (("fig3",), "unrecognized arguments: fig3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_arguments(out, capsys, words, message):
    assert main(out, *words) == 2
    assert one_error(capsys, message)
    assert not out.exists()


def test_out_that_is_a_file(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("mine")
    assert main(path) == 2
    assert one_error(capsys, "is no directory")
    assert path.read_text() == "mine"


# The runner


def test_finished_runs_are_skipped_by_logs_alone(fake, out, capsys):
    assert main(out, "--only", "fig3") == 0
    before = files(out)
    assert not list(out.rglob("model.npz"))
    fake("raise SystemExit(1)")
    capsys.readouterr()
    assert main(out, "--only", "fig3") == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 of 3 runs are there already",
        f"wrote {out / 'REPRODUCTION.md'}",
    ]
    assert files(out) == before


def test_committed_logs_tell_nothing_of_the_users(fake, out):
    assert main(out, "--only", "fig3") == 0
    for path in out.rglob("args.json"):
        text = path.read_text()
        assert str(out) not in text
        assert "somebody" not in text and "secret" not in text
    kept = sorted(path.name for path in (out / NONE).iterdir())
    assert kept == ["args.json", "log", STATISTICS]


def test_progress(fake, out, capsys):
    assert main(out, "--only", "fig3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"\[1/3\] {NONE} \(.* left\)", lines[0])
    assert re.fullmatch(rf"  {NONE}: test accuracy 25.0%, in \d+ s", lines[1])
    assert [line.split()[0] for line in lines[:-1:2]] == ["[1/3]", "[2/3]", "[3/3]"]


def test_runs_at_once(fake, out):
    # Each waits, for some seconds, until three have begun.
    fake(
        "for _ in range(200):\n"
        "    names = os.listdir(arguments['out'])\n"
        "    if sum(not name.endswith('.output') for name in names) >= 3: break\n"
        "    time.sleep(0.05)\n"
        "else: sys.exit('alone')"
    )
    command = ["--scale", "smoke", "--out", str(out), "--only", "fig3", "--jobs", "3"]
    assert experiments.main(command) == 0
    assert len(list(out.glob("runs/*/log"))) == 3


def test_runs_whose_times_count_are_alone_and_last(fake, out):
    fake(
        "place = arguments['out'] + '/../order'\n"
        "open(place, 'a').write(f'begin {name}\\n')\n"
        "time.sleep(0.2)\n"
        "open(place, 'a').write(f'end {name}\\n')"
    )
    command = ["--scale", "smoke", "--out", str(out), "--jobs", "2", "--only"]
    assert experiments.main([*command, "table2", "fig3"]) == 0
    order = [line.split() for line in (out / "order").read_text().splitlines()]
    timed = order[-8:]
    assert len(order) == 2 * 7
    assert {name for _, name in timed}.isdisjoint({name for _, name in order[:-8]})
    assert [what for what, _ in timed] == ["begin", "end"] * 4


def test_a_run_of_the_map_may_end_where_its_loss_is_not_finite(fake, out, capsys):
    fake(
        "record = json.load(open(os.path.join(path, 'args.json')))\n"
        "record.update(diverged=True, ended='the loss is not finite')\n"
        "json.dump(record, open(os.path.join(path, 'args.json'), 'w'))\n"
        "sys.exit(1)"
    )
    assert main(out, "--only", "map") == 0
    assert "test accuracy 10.0%" in capsys.readouterr().out
    capsys.readouterr()
    assert main(out, "--only", "map") == 0
    assert "28 of 28 runs are there already" in capsys.readouterr().out


def test_a_failed_run_is_named_and_the_others_go_on(fake, out, capsys):
    fake("if name.startswith('normal'): sys.exit('no luck today')")
    assert main(out, "--only", "fig3") == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("FAILED: status 1, no luck today" in line for line in lines)
    assert lines[-1] == f"1 of 3 runs failed: {NORMAL}"
    assert "no luck today" in (out / f"{NORMAL}.output").read_text()

    broken = (out / NORMAL / "args.json").read_bytes()
    fake()
    assert main(out, "--only", "fig3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 of 3 runs are there already"
    aside = out / f"{NORMAL}.broken-1"
    assert str(aside) in lines[2]
    assert (aside / "args.json").read_bytes() == broken
    assert not (out / f"{NORMAL}.output").exists()


def test_output_that_was_cleared_away_stops_nothing(fake, out):
    fake("os.unlink(path + '.output')")
    assert main(out, "--only", "fig3") == 0
    assert len(list(out.glob("*/*/log"))) == 3


def test_a_run_that_is_refused_stops_all(fake, out, capsys):
    fake("sys.exit(print('train_cifar.py: error: no', file=sys.stderr) or 2)")
    assert main(out) == 2
    assert capsys.readouterr().err == (
        f"chainer_crossbn experiments: error: {NONE}: train_cifar.py: error: no\n"
    )


def test_a_run_that_lacks_epochs_has_failed(fake, out, capsys):
    fake("arguments['epoch'] = 1")
    assert main(out, "--only", "fig3") == 1
    assert "FAILED: its log lacks epochs" in capsys.readouterr().out


def test_a_directory_of_another_run_is_refused(fake, out, capsys):
    assert main(out, "--only", "fig3") == 0
    path = out / NORMAL / "args.json"
    record = json.loads(path.read_text())
    record["arguments"]["lr"] = 7
    path.write_text(json.dumps(record))
    before = files(out)
    capsys.readouterr()
    assert main(out, "--only", "fig3") == 2
    assert one_error(capsys, "was made with lr 7, not", "choose another --out")
    assert files(out) == before


def test_two_runners_at_once(fake, out, capsys):
    with locked(out):
        assert main(out) == 2
        assert one_error(capsys, "already")
    assert not (out / "runs").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stop(fake, out, capsys, signum):
    fake("time.sleep(60)")
    threading.Timer(1, os.kill, (os.getpid(), signum)).start()
    assert main(out, "--only", "fig3") == 128 + signum
    message = (
        "chainer_crossbn experiments: stopped; run the same command again to continue\n"
    )
    assert capsys.readouterr().err == message
    # Free again, so that no process that the run has started is alive.
    with locked(out):
        assert [p for p in out.glob("*/*-s0") if p.is_dir()] == [out / NONE]
    assert not (out / NONE / "log").exists()  # it did not wait for the end of the run


@pytest.mark.slow
def test_smoke(out):
    """On real ranks; stopped in its first run, and then taken up again."""
    # Of the paper, of times, and beyond: others differ in flags.
    names = "fig3", "table2", "scaling", "large"
    command = [
        sys.executable,
        "-m",
        "chainer_crossbn",
        "experiments",
        "--scale",
        "smoke",
    ]
    command += ["--out", str(out), "--jobs", "1", "--only", *names]
    options = {"cwd": ROOT, "text": True, "stderr": subprocess.PIPE}
    options["env"] = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)
    begun = out / NONE
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    with locked(out):
        assert [p for p in out.glob("*/*-s0") if p.is_dir()] == [begun]

    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=900, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / f"{NONE}.broken-1").is_dir()
    chosen = [e for e in definitions.every(SMOKE) if e.name in names]
    assert len(chosen) == len(names) - 1  # of iterations' times there is no experiment
    for job in jobs.planned(chosen, SMOKE, [rules.searched_rule(out)], SMOKE.seeds):
        assert records.state(job, out) == records.FINISHED, job.name
    # Nothing else is kept of them.
    kept = {".lock", "args.json", "log", "profile.json", STATISTICS}
    assert {p.name for p in out.glob("*/*-s0/*")} | {".lock"} == kept
    text = (out / "REPRODUCTION.md").read_text()
    assert len(list((out / "figures").iterdir())) == text.count("![") == 9
    for path in re.findall(r"\]\(([^#\s]\S*)\)", text):
        assert (out / path).is_file(), path
    assert "| 7 |" in text and "not run: scaling" not in text


# The search


def test_beyond_the_paper(fake, out, monkeypatch, capsys):
    monkeypatch.undo()  # of what spares the time of drawing, too
    assert main(out, "--only", "deep", "sizes", "--dry-run") == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 20
    deep = [c for c in commands if "--model resnet110" in c or "--model googlenet" in c]
    assert len(deep) == 8
    assert not any("--fc-units" in command for command in deep)
    assert sum("--bn-layers" in command for command in deep) == 2
    assert not any("--profile" in c for c in commands if "--train-size 64" in c)


def test_data_of_its_own(out, capsys):
    words = "--scale", "laptop", "--out", str(out), "--only", "large", "fig3"
    assert experiments.main(list(words)) == 2
    assert one_error(capsys, "large goes alone, as its --data is another")


def test_search_chooses_what_all_networks_get_along_with(fake, out, capsys):
    assert main(out, "--only", "search") == 0
    # He gives 0.25 and LeCun 0.5, whatever the rate: the first of the latter
    chosen = Rule("lecun", search.BASE_RATES[0], "sqrt")
    assert capsys.readouterr().out.splitlines()[-1] == f"chosen: {chosen}"
    assert rules.searched_rule(out) == chosen
    outcome = json.loads((out / "search.json").read_text())
    assert outcome["scale"] == "smoke"
    assert len(outcome["rules"]) == 2 * len(search.BASE_RATES) * 2
    for entry in outcome["rules"]:
        assert entry["score"] == (1 if entry["init"] == "lecun" else 0.5)
        assert len(entry["test_accuracy"]) == 5

    assert main(out, "--only", "fig3", "--dry-run") == 0
    assert capsys.readouterr().out.count("--init lecun --lr 0.0025 ") == 3


def test_both_rules_share_the_runs_at_the_reference_batch():
    names = [job.name for job in search.planned(LAPTOP)]
    n = 2 * len(search.BASE_RATES)
    assert sum("-b64-" in name for name in names) == 3 * n
    assert sum("-b2-" in name for name in names) == 2 * 2 * n


def test_without_a_search_the_standard_holds(out, monkeypatch):
    monkeypatch.setattr(rules, "COMMITTED", out / "none")
    assert rules.searched_rule(out) == STANDARD


def test_a_broken_search_is_refused(out, capsys):
    out.mkdir()
    (out / "search.json").write_text("{")
    assert main(out) == 2
    assert one_error(capsys, "can't read", "search.json")


def test_no_chainer_and_no_mpi():
    code = "import sys, chainer_crossbn.commands.experiments as c; c.main(['--list']);"
    code += "assert not {'chainer', 'chainermn', 'mpi4py'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_state(fake, out):
    (job,) = jobs.planned(definitions.experiments(SMOKE)[:1], SMOKE, [STANDARD], 1)[:1]
    assert records.state(job, out) == records.MISSING
    job.directory(out).mkdir(parents=True)
    assert records.state(job, out) == records.BROKEN
