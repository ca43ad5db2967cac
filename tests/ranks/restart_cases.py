"""Runs that stop and are resumed."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import numpy as np
import pytest
from mpi4py import MPI

from chainer_crossbn.commands.train.main import main
from chainer_crossbn.commands.train.main import run as run_on
from chainer_crossbn.runs import run_directory
from chainer_crossbn.training.snapshots import state, storage
from chainer_crossbn.training.updaters import GlobalUpdater

WORLD = MPI.COMM_WORLD
# 42 images in global batches of 4 a rank; snapshots within epochs, too.
FLAGS = (
    *("--width", 1, "--fc-units", 4, "--batchsize", 4, "--epoch", 3, "--cpu"),
    *("--dataset", "synthetic", "--train-size", 42, "--test-size", 21),
    *("--dropout", 0.5, "--lr-step", 2, "--snapshot-interval", 0.5),
)
# What may differ in the log.
TIMES = {"elapsed_time", "train_time", "images_per_second"}


def train(*flags):
    WORLD.Barrier()
    status = main([str(flag) for flag in flags])
    WORLD.Barrier()
    return status


def result(run):
    with np.load(run / "model.npz") as model:
        arrays = {key: (v.dtype, v.shape, v.tobytes()) for key, v in model.items()}
    log = json.loads((run / "log").read_text())
    return [{k: v for k, v in e.items() if k not in TIMES} for e in log], arrays


def bn_of(run):
    return json.loads((run / "args.json").read_text())["arguments"]["bn"]


def snapshots(run):
    return sorted(run.glob("snapshots/*"))


def contents(run):
    return {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


@pytest.fixture
def shared(tmp_path):
    """A directory that all ranks see."""
    return Path(WORLD.bcast(str(tmp_path)))


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory):
    """A run that was never stopped; of normal unless the test says otherwise."""
    bn = getattr(request, "param", "normal")
    out = Path(WORLD.bcast(str(tmp_path_factory.mktemp("whole"))))
    assert train(*FLAGS, "--bn", bn, "--out", out, "--name", "run") == 0
    return out / "run"


@pytest.fixture
def stopped(whole, shared, monkeypatch):
    """Returns a copy of the run, with its last snapshots taken away."""

    def stop(missing):
        path = shared / "run"
        if WORLD.rank == 0:
            shutil.copytree(whole, path)
            for name in ("model.npz", "statistics.json"):
                (path / name).unlink()
            for snapshot in snapshots(path)[len(snapshots(path)) - missing :]:
                shutil.rmtree(snapshot)
        WORLD.Barrier()
        return path

    return stop


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("whole", ["multigpu", "normal", "weight"], indirect=True)
def test_goes_on_bit_for_bit(whole, stopped, missing, capsys):
    run = stopped(missing)
    before = json.loads((run / "log").read_text())
    assert train("--resume", run) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    if WORLD.rank == 0:
        assert "continuing after iteration" in shown.out
    assert result(run) == result(whole)
    after = json.loads((run / "log").read_text())
    # Times go on, too.
    for key in ("elapsed_time", "train_time"):
        assert [entry[key] for entry in after] == sorted(e[key] for e in after)
        assert after[0][key] == before[0][key]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_rank_stops_all(whole, shared, monkeypatch, capsys, number):
    update_core = GlobalUpdater.update_core

    def signalled(updater):
        if updater.iteration == 2 and WORLD.rank == WORLD.size - 1:
            os.kill(os.getpid(), number)
        update_core(updater)

    monkeypatch.setattr(GlobalUpdater, "update_core", signalled)
    bn = bn_of(whole)
    run = shared / "run"
    begin = (*FLAGS, "--bn", bn, "--snapshot-interval", 0)
    where = ("--out", shared, "--name", "run", "--resume", "auto")
    handler = signal.getsignal(number)
    assert train(*begin, *where) == 0
    assert signal.getsignal(number) is handler
    if WORLD.rank == 0:
        assert f"stopped after iteration 4; go on with --resume {run}" in (
            capsys.readouterr().out
        )
    assert [path.name for path in snapshots(run)] == ["000000004"]
    monkeypatch.undo()
    assert train(*begin, *where) == 0
    assert result(run) == result(whole)
    before = contents(run)
    assert train(*begin, *where) == 0
    if WORLD.rank == 0:
        assert f"{run} is already finished" in capsys.readouterr().out
    assert contents(run) == before


def test_a_damaged_snapshot_is_skipped(whole, stopped, capsys):
    run = stopped(0)
    if WORLD.rank == 0:
        file = snapshots(run)[-1] / "shared.npz"
        os.truncate(file, file.stat().st_size - 1)
    WORLD.Barrier()
    assert train("--resume", run) == 0
    if WORLD.rank == 0:
        (line,) = capsys.readouterr().err.splitlines()
        assert "is damaged and skipped: shared.npz differs" in line
    assert result(run) == result(whole)


def refused(capsys, *flags):
    """Check that a command is refused; return why."""
    assert train(*flags) == 2
    (*_, why) = WORLD.bcast(capsys.readouterr().err.splitlines() or [""])
    return why


def test_other_arguments_are_refused(whole, stopped, capsys):
    run = stopped(0)
    before = contents(run)
    for flag, value, was in (
        (
            "--bn",
            "none",
            bn_of(run),
        ),
        ("--dataset", "cifar10", "synthetic"),
        ("--seed", 1, 0),
        ("--width", 2, 1),
        ("--lr", 1, ""),
        ("--train-size", 40, 42),
        ("--epoch", 2, 3),
    ):
        why = refused(capsys, "--resume", run, flag, value)
        assert f"was made with {flag} {was}" in why and f"not {value}" in why
    assert contents(run) == before


def test_other_data_are_refused(whole, stopped, capsys):
    run = stopped(0)
    if WORLD.rank == 0:
        record = json.loads((run / "args.json").read_text())
        record["dataset"]["checksum"] = "another"
        (run / "args.json").write_text(json.dumps(record))
    WORLD.Barrier()
    assert "made with other data" in refused(capsys, "--resume", run)


def test_no_snapshot_to_go_on_from(whole, stopped, shared, capsys):
    run = stopped(len(snapshots(whole)))
    assert "has no snapshot" in refused(capsys, "--resume", run)
    assert "is no run" in refused(capsys, "--resume", shared)
    assert "no such run directory" in refused(capsys, "--resume", shared / "none")


def test_auto_begins_anew_without_a_snapshot(whole, stopped, shared, capsys):
    run = stopped(len(snapshots(whole)))
    bn = bn_of(run)
    before = contents(run / "..")
    flags = (*FLAGS, "--bn", bn, "--out", shared, "--name", "run", "--resume", "auto")
    WORLD.Barrier()
    assert train(*flags) == 0
    if WORLD.rank == 0:
        assert "run.broken-1" in capsys.readouterr().err
    assert result(run) == result(whole)
    aside = contents(shared / "run.broken-1")
    assert sorted(aside.values()) == sorted(before.values())


def test_auto_leaves_other_directories_alone(shared, capsys):
    if WORLD.rank == 0:
        (shared / "run").mkdir()
        (shared / "run" / "mine").write_text("mine")
    flags = ("--out", shared, "--name", "run", "--resume", "auto")
    assert "is no run" in refused(capsys, *FLAGS, *flags)
    assert os.listdir(shared / "run") == ["mine"]


def test_all_snapshots_damaged(whole, stopped, capsys):
    run = stopped(0)
    if WORLD.rank == 0:
        for snapshot in snapshots(run):
            (snapshot / "rank-0.npz").unlink()
    WORLD.Barrier()
    before = contents(run)
    assert "no snapshot to continue from" in refused(capsys, "--resume", run)
    assert contents(run) == before


def test_a_full_disk_ends_the_run(whole, shared, monkeypatch, capsys):
    write = storage.write

    def full(folder, iteration, parts, about, warn):
        if iteration > 10:
            raise OSError(28, "No space left on device")
        write(folder, iteration, parts, about, warn)

    monkeypatch.setattr(storage, "write", full)
    assert train(*FLAGS, "--out", shared, "--name", "run", "--bn", "normal") == 1
    if WORLD.rank == 0:
        (line,) = capsys.readouterr().err.splitlines()
        assert "can't write the snapshot of iteration" in line
        assert "No space left on device" in line
    monkeypatch.undo()
    assert train("--resume", shared / "run") == 0
    assert result(shared / "run") == result(whole)


def test_no_room(shared, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    why = refused(capsys, *FLAGS, "--out", shared / "new", "--name", "run")
    assert re.search(r"can't write \d+ MB into .*run: No space left on device", why)
    assert not (shared / "new" / "run").exists()


def test_ranks_of_a_run_that_was_killed(stopped, capsys):
    run = stopped(0)
    record = json.loads((run / "args.json").read_text())
    assert train("--resume", run) == 0
    if WORLD.rank == 0:
        last = WORLD.size - 1
        pid = record["ranks"][last]["pid"]
        line = next(
            line
            for line in capsys.readouterr().out.splitlines()
            if "rank 0 was PID " in line
        )
        assert f"rank {last} was PID {pid} on " in line


def test_a_loss_that_is_no_number(whole, shared, monkeypatch, capsys):
    update_core = GlobalUpdater.update_core

    def broken(updater):
        if updater.iteration == 4 and WORLD.rank == WORLD.size - 1:
            model = updater.get_optimizer("main").target
            model.stages[1][1].conv.W.array[0] = np.inf
        update_core(updater)

    monkeypatch.setattr(GlobalUpdater, "update_core", broken)
    # One iteration after the other.
    flags = (*FLAGS, "--bn", "none", "--out", shared, "--snapshot-interval", 1e-3)
    assert train(*flags, "--name", "run") == 1
    if WORLD.rank == 0:
        (line,) = capsys.readouterr().err.splitlines()
        assert f"the loss is not finite on rank {WORLD.size - 1} " in line
        assert "in iteration 5, first behind stages/1/1/conv;" in line
    assert snapshots(shared / "run")[-1].name == "000000004"
    assert train(*flags, "--name", "allowed", "--allow-nan") == 0
    log = json.loads((shared / "allowed" / "log").read_text())
    assert len(log) == 3 and np.isnan(log[-1]["main/loss"])


def test_another_number_of_ranks(stopped, capsys):
    run = stopped(1)
    parts = storage.read(str(run / "snapshots"), int(snapshots(run)[-1].name))[1]
    own = [parts[f"rank-{rank}"] for rank in range(WORLD.size)]
    average = state._average(own)
    mean, var = (f"stages/0/0/norm/avg_{name}" for name in ("mean", "var"))
    means, variances = (
        np.array([o["model/" + key] for o in own]) for key in (mean, var)
    )
    assert average[mean] == pytest.approx(means.mean(axis=0), rel=1e-6)
    mixed = variances.mean(axis=0) + means.var(axis=0)
    assert average[var] == pytest.approx(mixed, rel=1e-5)
    if WORLD.rank == 0:
        run_on(["--resume", str(run)], MPI.COMM_SELF)
        log = json.loads((run / "log").read_text())
        assert [entry["epoch"] for entry in log] == [1, 2, 3]
        assert all(np.isfinite(entry["validation/main/loss"]) for entry in log)
        note = f"taken with {WORLD.size} ranks, and the run continues with 1 rank"
        assert (note in capsys.readouterr().err) == (WORLD.size > 1)
    WORLD.Barrier()


def test_what_a_kill_leaves_is_removed(stopped):
    run = stopped(0)
    if WORLD.rank == 0:
        (run / "log_abc123x").mkdir()
        (run / "log_abc123x" / "log.json").write_text("[")
        (run / ".writing-args").write_text("{")
        (run / "logs_mine_").mkdir()
        (run / "logs_mine_" / "notes").write_text("mine")
    assert train("--resume", run) == 0
    names = {path.name for path in run.iterdir()}
    assert not names & {"log_abc123x", ".writing-args"}
    assert (run / "logs_mine_" / "notes").read_text() == "mine"


def test_a_profile_goes_on(shared, monkeypatch):
    flags = (*FLAGS, "--bn", "normal", "--out", shared, "--name", "run", "--profile")
    assert train(*flags) == 0
    run = shared / "run"
    if WORLD.rank == 0:
        (run / "statistics.json").unlink()
        shutil.rmtree(snapshots(run)[-1])
    assert train("--resume", run) == 0
    profile = json.loads((run / "profile.json").read_text())
    assert len(profile["epochs"]) == 3


def test_a_run_that_goes_on_is_left_alone(stopped, shared, capsys):
    run = stopped(0)
    lock = run_directory.lock(str(run)) if WORLD.rank == 0 else None
    before = contents(run)
    WORLD.Barrier()
    flags = (*FLAGS, "--bn", "normal", "--out", shared, "--name", "run")
    assert "is being written by another" in refused(capsys, "--resume", run)
    assert "is being written" in refused(capsys, *flags, "--resume", "auto")
    assert "exists already" in refused(capsys, *flags)
    assert contents(run) == before
    if WORLD.rank == 0:
        os.close(lock)
    assert train("--resume", run) == 0
