"""``plot.py`` on runs with a profile."""

import json
import subprocess
import sys

import pytest
from test_plotting import PLOT, groups_of, write_run

COMPONENTS = [
    *("data", "forward", "backward", "BN arithmetic", "BN wait", "BN transfer"),
    *("all-reduce wait", "all-reduce transfer", "update", "evaluation", "other"),
]


def epoch(factor):
    return {
        "iterations": 10,
        "wall": 66e3 * factor,
        "components": [1e3 * factor * i for i in range(1, 12)],
        "by_rank": [[1e3 * factor * i] * 2 for i in range(1, 12)],
        "layers": {"/conv": [factor, 2, 0, 0], "/norm": [1, 2, 3, 4]},
        "clock_uncertainty": 0.5,
    }


def content():
    return {
        "components": COMPONENTS,
        "of_layers": ["forward", "backward", "wait", "transfer"],
        "epochs": [epoch(100), epoch(1), epoch(3)],
        "last_epoch": [list(range(11))] * 10,
        "timeline": {
            "iteration": 4,
            "layers": ["", "/stages/0/0/norm"],
            "events": [
                [0, "forward", 0, 0, 4000],
                [0, "function", 1, 1000, 2500],
                [0, "BN wait", 1, 1250, 1000],
                [1, "forward", 0, 1500, 2500],
            ],
        },
    }


def plot(*arguments):
    return subprocess.run(
        [sys.executable, PLOT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def write_profile(run, profile):
    (run / "profile.json").write_text(
        profile if isinstance(profile, str) else json.dumps(profile)
    )


def test_figures_and_trace_of_a_profile(tmp_path):
    for seed in (0, 1):
        write_profile(write_run(tmp_path, "multigpu", seed=seed), content())
    write_run(tmp_path, "normal")
    done = plot(tmp_path, "--out", tmp_path / "figures")
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    for stem in ("profile", "timeline-multigpu-b64-s0"):
        assert {f"{stem}.png", f"{stem}.pdf"} <= names
    # One time line a configuration; none where there is no profile.
    assert sum(name.startswith("timeline") for name in names) == 2
    assert f"wrote {tmp_path}/figures/trace-multigpu-b64-s0.json\n" in done.stdout
    trace = json.loads((tmp_path / "figures/trace-multigpu-b64-s0.json").read_text())
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert spans[2] == {
        **{"name": "/stages/0/0/norm BN wait", "cat": "BN wait", "ph": "X"},
        **{"pid": 0, "tid": 0, "ts": 1250, "dur": 1000},
    }
    assert len(spans) == 4
    again = plot(tmp_path, "--out", tmp_path / "figures")
    assert again.returncode == 0, again.stderr


def test_no_figure_without_a_profile(tmp_path):
    write_run(tmp_path, "normal")
    assert plot(tmp_path).returncode == 0
    names = [path.name for path in tmp_path.iterdir()]
    assert not [name for name in names if name.startswith(("profile", "trace"))]


def test_bars_leave_out_the_first_epoch(tmp_path):
    from chainer_crossbn.plotting import profiles

    profile = profiles.Profile(content())
    # Milliseconds; the other epochs have factors 1 and 3.
    assert list(profile.components) == COMPONENTS
    assert list(profile.components.values()) == pytest.approx(
        [2.0 * i for i in range(1, 12)]
    )
    assert profile.events[1] == (0, "function", "/stages/0/0/norm", 1.0, 2.5)


def test_runs_with_virtual_ranks_are_left_out(tmp_path):
    from chainer_crossbn.commands import plot
    from chainer_crossbn.plotting import profiles

    real = write_run(tmp_path, "multigpu")
    seed = write_run(tmp_path, "multigpu", seed=1, virtual_ranks=4)
    alone = write_run(tmp_path, "normal", virtual_ranks=8)
    for run in (real, seed, alone):
        write_profile(run, content())
    ((_, pairs),), skipped = profiles.read_all(groups_of(tmp_path))
    assert ([run.directory for run, _ in pairs], skipped) == ([real], [])
    found, _ = profiles.read_all(groups_of(alone))
    assert plot.draw_profiles(found) == ([], [])


def without(key):
    return {name: value for name, value in content().items() if name != key}


BROKEN = {
    "no JSON": "{",
    "empty": "",
    "a list": [1, 2],
    "without epochs": without("epochs"),
    "without components": without("components"),
    "without a time line": without("timeline"),
    "no epoch": {**content(), "epochs": []},
    "not a number": {
        **content(),
        "epochs": [{**epoch(1), "components": [float("nan")] * 11}],
    },
    "other components": {**content(), "components": [*COMPONENTS[:-1], "rest"]},
    "no event": {**content(), "timeline": {"layers": [], "events": []}},
    "layer out of range": {
        **content(),
        "timeline": {"layers": [], "events": [[0, "forward", 3, 0, 1]]},
    },
}


def test_broken_profiles_are_named_and_left_out(tmp_path):
    expected = []
    for seed, profile in enumerate(BROKEN.values()):
        run = write_run(tmp_path, "multigpu", seed=seed)
        write_profile(run, profile)
        expected.append(f"plot.py: skipped the profile of {run}: profile.json ")
    write_profile(write_run(tmp_path, "normal"), content())
    done = plot(tmp_path)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == len(expected)
    for start in expected:
        assert sum(line.startswith(start) for line in lines) == 1, start
    assert (tmp_path / "profile.png").exists()
    assert not list(tmp_path.glob("timeline-multigpu-*"))


def test_a_file_of_the_user_is_not_overwritten(tmp_path):
    write_profile(write_run(tmp_path, "multigpu"), content())
    mine = tmp_path / "trace-multigpu-b64-s0.json"
    mine.write_text("{}")
    done = plot(tmp_path)
    assert done.returncode == 2
    assert mine.read_text() == "{}"
    assert "is not overwritten" in done.stderr
    assert not (tmp_path / "loss.png").exists()
