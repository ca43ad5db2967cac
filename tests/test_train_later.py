"""What can be done with a finished run: train on, and evaluate its model."""

import json
import math
import shutil

import numpy as np
import pytest
from test_train_cifar import but_times, contents, read

from chainer_crossbn import __version__
from chainer_crossbn.commands.train.main import main

SMALL = (
    *("--dataset", "synthetic", "--train-size", "30", "--test-size", "20"),
    *("--width", "1", "--fc-units", "4", "--batchsize", "5", "--cpu", "--name", "run"),
)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Return a function that trains once for the same options, and returns the run."""
    runs = {}

    def train(*options):
        if options not in runs:
            out = tmp_path_factory.mktemp("runs")
            assert main([*SMALL, *options, "--out", str(out)]) == 0
            runs[options] = out / "run"
        return runs[options]

    return train


def test_more_epochs_are_as_if_they_had_been_asked_for_at_once(train, tmp_path, capsys):
    run = shutil.copytree(train("--epoch", "2"), tmp_path / "run")
    assert main(["--resume", str(run), "--epoch", "3"]) == 0
    assert "interrupted" not in capsys.readouterr().out
    record, log, arrays = read(run)
    _, whole_log, whole_arrays = read(train("--epoch", "3"))
    assert but_times(log) == but_times(whole_log)
    assert all(np.array_equal(arrays[name], a) for name, a in whole_arrays.items())
    assert record["arguments"]["epoch"] == 3
    assert record["epochs_before"] == [2]
    assert main(["--resume", str(run)]) == 0
    assert "finished" in capsys.readouterr().out


def test_fewer_epochs_or_another_cosine_are_refused(train, capsys):
    for options, epochs in [
        (("--epoch", "2"), "1"),
        (("--epoch", "2", "--lr-schedule", "cosine"), "3"),
    ]:
        run = train(*options)
        before = contents(run)
        assert main(["--resume", str(run), "--epoch", epochs]) == 2
        assert "--epoch" in capsys.readouterr().err
        assert contents(run) == before


@pytest.mark.parametrize("bn", ["multigpu", "weight"])
def test_evaluation_is_that_of_the_last_epoch(train, capsys, bn):
    run = train("--epoch", "2", "--bn", bn)
    before = contents(run)
    assert main(["--evaluate", str(run)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    last = read(run)[1][-1]
    assert f"accuracy: {last['train/main/accuracy']:.2%}" in shown.out
    assert f"loss: {last['validation/main/loss']:.5g}" in shown.out
    assert f"accuracy: {last['validation/main/accuracy']:.2%}" in shown.out
    assert contents(run) == before


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_model_that_does_not_fit(train, tmp_path, capsys, damage):
    run = shutil.copytree(train("--epoch", "2"), tmp_path / "run")
    file = run / "model.npz"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        np.savez(file, weights=np.zeros(3))
    assert main(["--evaluate", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line


@pytest.mark.parametrize("option", ["--resume", "--evaluate"])
def test_a_missing_run_is_called_missing(tmp_path, capsys, option):
    assert main([option, str(tmp_path / "none")]) == 2
    assert "no such run directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options,factors",
    [
        (
            ("--lr-schedule", "cosine"),
            [(1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)],
        ),
        (("--lr-step", "2"), [1, 1, 0.5, 0.5]),
        (("--lr-step", "1", "--lr-factor", "0.1"), [1, 0.1, 0.01, 0.001]),
        (
            ("--lr-schedule", "milestones", "--lr-milestones", "1,3"),
            [1, 0.5, 0.5, 0.25],
        ),
    ],
)
def test_schedules(train, tmp_path, options, factors):
    run = train("--epoch", "4", "--lr", "0.01", *options)
    rates = [entry["lr"] for entry in read(run)[1]]
    assert rates == pytest.approx([0.01 * factor for factor in factors], rel=1e-12)
    # The rate is right after a resume, too.
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "statistics.json").unlink()
    *_, last = sorted((copy / "snapshots").iterdir())
    shutil.rmtree(last)
    assert main(["--resume", str(copy)]) == 0
    assert but_times(read(copy)[1]) == but_times(read(run)[1])


@pytest.mark.parametrize(
    "options",
    [
        ("--lr-schedule", "milestones"),
        ("--lr-milestones", "1,2"),
        ("--lr-schedule", "milestones", "--lr-milestones", "2,1"),
        ("--lr-schedule", "cosine", "--lr-step", "2"),
        ("--lr-schedule", "cosine", "--lr-factor", "0.1"),
        ("--lr-factor", "1"),
    ],
)
def test_schedules_that_make_no_sense(tmp_path, capsys, options):
    assert main([*SMALL, *options, "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_runs_without_newer_options_go_on(train, tmp_path, capsys):
    run = shutil.copytree(train("--epoch", "2"), tmp_path / "run")
    record = json.loads((run / "args.json").read_text())
    for name in ("lr_schedule", "lr_milestones", "lr_factor"):
        del record["arguments"][name]
    (run / "args.json").write_text(json.dumps(record))
    assert main(["--resume", str(run), "--epoch", "3"]) == 0
    assert len(read(run)[1]) == 3


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert __version__ in capsys.readouterr().out


def test_a_flag_that_is_nearly_right(capsys):
    assert main(["--epochs", "3"]) == 2
    assert "--epoch?" in capsys.readouterr().err


def test_precision_is_that_of_the_run(train, tmp_path):
    run = shutil.copytree(train("--epoch", "2", "--dtype", "float64"), tmp_path / "run")
    assert main(["--resume", str(run), "--epoch", "3"]) == 0
    record, log, arrays = read(run)
    assert record["arguments"]["dtype"] == "float64"
    assert {a.dtype.char for a in arrays.values()} <= {"d", "i", "l"}
    _, whole_log, _ = read(train("--epoch", "3", "--dtype", "float64"))
    assert but_times(log) == but_times(whole_log)


def test_another_precision_is_refused(train, capsys):
    run = train("--epoch", "2")
    before = contents(run)
    assert main(["--resume", str(run), "--epoch", "3", "--dtype", "float64"]) == 2
    assert "--dtype" in capsys.readouterr().err
    assert contents(run) == before


def test_communicator_and_device_are_those_of_the_run(train, tmp_path):
    run = shutil.copytree(
        train("--epoch", "2", "--communicator", "naive"), tmp_path / "run"
    )
    assert main(["--resume", str(run), "--epoch", "3"]) == 0
    arguments = read(run)[0]["arguments"]
    assert arguments["communicator"] == "naive"
