import colorsys
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from matplotlib.colors import same_color, to_hex, to_rgb
from matplotlib.figure import Figure

from chainer_crossbn.commands import plot
from chainer_crossbn.plotting import bars, groups, trends
from chainer_crossbn.plotting.groups import time_ratio
from chainer_crossbn.runs import reading
from chainer_crossbn.runs.networks import network_of

PLOT = Path(__file__).parents[1] / "plot.py"
# Seconds of training per epoch; two more an epoch go into evaluation.
SECONDS = {"none": 9.0, "normal": 10.0, "multigpu": 15.0, "chainer": 11.0}
TEST = (0.25, 0.5, 0.4375)
TRAIN = (0.375, 0.625, 0.75)
# Of the palette of Okabe and Ito.
COLOURS = {"noBN": "#000000", "normalBN": "#0072b2", "multigpuBN": "#d55e00"}
BATCH_64 = (("none", 64), ("normal", 64), ("multigpu", 64))
PAPER = (*BATCH_64, ("multigpu", 2), ("normal", 4), ("multigpu", 4))


def epochs(bn="normal", shift=0.0, length=3, seconds=None):
    seconds = seconds or SECONDS[bn]
    return [
        {
            "main/loss": 2.5,
            "main/accuracy": 0.125,
            "train_time": seconds * epoch,
            "images_per_second": 100.0,
            "train/main/loss": 2.0 / epoch + shift,
            "train/main/accuracy": TRAIN[epoch - 1] + shift,
            "validation/main/loss": 2.25 / epoch + shift,
            "validation/main/accuracy": TEST[epoch - 1] + shift,
            "lr": 0.01,
            "epoch": epoch,
            "iteration": 4 * epoch,
            "elapsed_time": (seconds + 2) * epoch,
        }
        for epoch in range(1, length + 1)
    ]


def write_run(root, bn, batch=64, log=None, name=None, **arguments):
    """Write a run directory as training does; one with three epochs is finished."""
    log = epochs(bn) if log is None else log
    path = Path(root) / (name or f"{bn}-b{batch}-s{arguments.get('seed', 0)}")
    path.mkdir(parents=True)
    record = {
        "program": "chainer_crossbn",
        "arguments": {
            "bn": bn,
            "model": "vgg16",
            "width": 16,
            "batchsize": batch,
            "epoch": 3,
            "lr": 0.01,
            "seed": 0,
            "dataset": "cifar10",
            "data": None,
            "threads": 1,
            "out": str(root),
            "name": path.name,
            **arguments,
        },
        "n_ranks": 8,
        "device": "CPU",
        "dataset": {"name": "cifar10", "checksum": "c0ffee"},
    }
    if "virtual_ranks" in arguments:
        record["virtual_ranks"] = arguments["virtual_ranks"]
    (path / "args.json").write_text(json.dumps(record))
    if not isinstance(log, list):
        (path / "log").write_bytes(log.encode() if isinstance(log, str) else log)
        return path
    (path / "log").write_text(json.dumps(log))
    if len(log) == 3:
        (path / "model.npz").write_bytes(b"PK")
    return path


def groups_of(*paths):
    runs, skipped = reading.find_runs(paths)
    assert not skipped
    return groups.group_runs(runs)


def draw(*paths):
    return dict(plot.draw(groups_of(*paths))[0])


def paper_runs(root, pairs):
    for bn, batch in pairs:
        write_run(root, bn, batch)
    return root


def files(root):
    return {p: p.read_bytes() for p in Path(root).rglob("*") if p.is_file()}


def legend_of(figure):
    """Label -> colour, line style and marker of the lines in all the legends."""
    found = {}
    for ax in figure.axes:
        legends = [c for c in ax.get_children() if type(c).__name__ == "Legend"]
        for legend in legends:
            for text, line in zip(legend.get_texts(), legend.get_lines()):
                look = (line.get_color(), line.get_linestyle(), line.get_marker())
                found[text.get_text()] = look
    return found


def lines_of(ax):
    """Line style -> list of lines."""
    found = {}
    for line in ax.get_lines():
        found.setdefault(line.get_linestyle(), []).append(line)
    return found


def words_of(figure):
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    return texts + [text.get_text() for text in figure.texts]


def one_error(capsys, *words):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("plot.py: error: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    for word in words:
        assert str(word) in err
    return True


def row_of(table, name):
    (line,) = [line for line in table.splitlines() if line.startswith(f"{name} ")]
    return line.split()


# The command


@pytest.fixture
def unsaved(monkeypatch):
    """Spare the time of saving figures where what is printed is tested."""
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: None)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The paper's networks at batch size 64, drawn without --out."""
    root = tmp_path_factory.mktemp("result")
    paper_runs(root, BATCH_64)
    before = files(root)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert plot.main([str(root)]) == 0
    return root, before, out.getvalue()


FILES_64 = ["loss", "accuracy", "accuracy_time", "epoch_time", "fig3", "table2"]


def test_files_beside_runs(command):
    root, before, _ = command
    wanted = {root / f"{n}.{s}" for n in FILES_64 for s in ("png", "pdf")}
    after = files(root)
    assert set(after) == wanted | set(before)
    for path in wanted:
        start = b"\x89PNG\r\n\x1a\n" if path.suffix == ".png" else b"%PDF-"
        assert after[path].startswith(start)
        assert len(after[path]) > 5000
    assert {path: after[path] for path in before} == before


def test_names_printed(command):
    root, _, out = command
    wrote = [line for line in out.splitlines() if line.startswith("wrote ")]
    assert wrote == [f"wrote {root / name}.png and {name}.pdf" for name in FILES_64]


def test_missing_figures_printed(command):
    out = command[2].splitlines()
    assert "fig4 not drawn: needs normalBN@64, multigpuBN@2" in out
    assert "fig5 not drawn: needs normalBN@4, multigpuBN@4, normalBN@64" in out


@pytest.mark.parametrize(
    ("bn", "network", "seconds", "ratio"),
    [
        ("none", "noBN", ("27.0", "33.0", "9.00"), "0.900"),
        ("normal", "normalBN", ("30.0", "36.0", "10.00"), "1.000"),
        ("multigpu", "multigpuBN", ("45.0", "51.0", "15.00"), "1.500"),
    ],
)
def test_table_of_runs(command, bn, network, seconds, ratio):
    accuracies = ["43.75", "50.00", "75.00"]
    wanted = [f"{bn}-b64-s0", network, "64", "8", "3/3", *accuracies, *seconds, ratio]
    assert row_of(command[2], f"{bn}-b64-s0") == wanted


def test_table2_printed(command):
    _, _, after = command[2].partition("Table 2 ")
    assert after.startswith("(CIFAR-10, VGG16, width 16, 8 ranks, 3 epochs, lr 0.01)\n")
    assert row_of(after, "noBN") == ["noBN", "33.0", "0.917", "748", "0.930"]
    assert row_of(after, "normalBN") == ["normalBN", "36.0", "1.000", "804", "1.000"]
    row = ["multigpuBN", "51.0", "1.417", "1211", "1.506"]
    assert row_of(after, "multigpuBN") == row


def test_ratio_to_median_of_seeds(tmp_path, capsys, unsaved):
    for seed, seconds in enumerate((8.0, 10.0, 20.0)):
        log = epochs(seconds=seconds)
        write_run(tmp_path, "normal", seed=seed, log=log)
    write_run(tmp_path, "multigpu")
    assert plot.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name, ratio in (
        ("normal-b64-s0", "0.800"),
        ("normal-b64-s1", "1.000"),
        ("normal-b64-s2", "2.000"),
        ("multigpu-b64-s0", "1.500"),
    ):
        assert row_of(out, name)[-1] == ratio


def test_out_keeps_what_is_there(tmp_path, capsys, unsaved):
    runs, out = tmp_path / "runs", tmp_path / "deep" / "figures"
    write_run(runs, "normal")
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    (out / "fig3.png").write_bytes(b"mine, but not drawn anew")
    before = files(tmp_path)
    assert plot.main([str(runs / "normal-b64-s0"), "--out", str(out)]) == 0
    after = files(tmp_path)
    assert {path: after[path] for path in before} == before
    new = {path.name for path in set(after) - set(before)}
    assert new == {f"{n}.{s}" for n in FILES_64[:4] for s in ("png", "pdf")}
    assert f"wrote {out / 'loss.png'} and loss.pdf\n" in capsys.readouterr().out


def test_redrawn_in_place(tmp_path, capsys, monkeypatch):
    path = write_run(tmp_path, "normal", log=epochs(length=2))
    assert plot.main([str(tmp_path)]) == 0
    before = files(tmp_path)
    (path / "log").write_text(json.dumps(epochs()))
    assert plot.main([str(tmp_path)]) == 0
    after = files(tmp_path)
    assert set(after) == set(before)
    same = {path.name for path in before if after[path] == before[path]}
    assert same == {"args.json"}
    capsys.readouterr()

    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    assert plot.main([str(tmp_path)]) == 2
    assert one_error(capsys, tmp_path, "No space left on device")
    assert files(tmp_path) == after


@pytest.mark.parametrize("name", ["loss.png", "epoch_time.pdf"])
def test_foreign_file_not_overwritten(tmp_path, capsys, name):
    write_run(tmp_path / "runs", "normal")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"\x89PNG\r\n\x1a\nof another program")
    before = files(tmp_path)
    out = str(tmp_path / "out")
    assert plot.main([str(tmp_path / "runs"), "--out", out]) == 2
    assert one_error(capsys, tmp_path / "out" / name, "--out")
    assert files(tmp_path) == before


@pytest.mark.parametrize("out", ["file", "file/deeper"])
def test_out_cannot_be_written(tmp_path, capsys, out):
    write_run(tmp_path / "runs", "normal")
    (tmp_path / "file").write_text("mine")
    before = files(tmp_path)
    command = [str(tmp_path / "runs"), "--out", str(tmp_path / out)]
    assert plot.main(command) == 2
    assert one_error(capsys, tmp_path / out, "choose another --out")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["PATH"]),
        (["--colour", "x"], ["--help"]),
        ([""], ["no such file or directory"]),
        (["{}", "{}/away"], ["away: no such file", "give run directories"]),
        (["{}"], ["no run under", "train_cifar.py"]),
    ],
)
def test_bad_arguments(tmp_path, capsys, argv, words):
    (tmp_path / "notes.txt").write_text("mine")
    argv = [argument.format(tmp_path) for argument in argv]
    assert plot.main([*argv, "--out", str(tmp_path / "out")]) == 2
    assert one_error(capsys, *words)
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]


def test_broken_run_named_and_skipped(tmp_path, capsys, unsaved):
    write_run(tmp_path, "normal")
    broken = write_run(tmp_path, "multigpu", log="")
    assert plot.main([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == f"plot.py: skipped {broken}: log is empty\n"
    assert "normal-b64-s0" in out and "multigpu-b64-s0" not in out
    assert (tmp_path / "loss.png").exists()


def test_only_broken_runs(tmp_path, capsys):
    for bn in ("multigpu", "none", "normal"):
        write_run(tmp_path, bn, log="")
    before = files(tmp_path)
    assert plot.main([str(tmp_path)]) == 2
    first = tmp_path / "multigpu-b64-s0"
    assert one_error(capsys, first, "log is empty", "2 others")
    assert files(tmp_path) == before


def test_line_break_in_name_stays_in_line(tmp_path, capsys):
    assert plot.main([str(tmp_path / "a\nb\x1b[2J")]) == 2
    assert one_error(capsys, r"a\nb\x1b[2J")


def test_runs_without_common_directory(monkeypatch, capsys, tmp_path):
    write_run(tmp_path, "normal")
    monkeypatch.setattr(os.path, "commonpath", lambda paths: os.path.abspath(os.sep))
    assert plot.main([str(tmp_path)]) == 2
    assert one_error(capsys, "--out")


def script(*arguments, **kwargs):
    """Run Python with neither a display nor a choice of matplotlib's backend."""
    env = {k: v for k, v in os.environ.items() if "DISPLAY" not in k}
    env.pop("MPLBACKEND", None)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**env, "PYTHONPATH": str(PLOT.parent)},
        text=True,
        timeout=300,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs},
    )


def test_script_loads_neither_chainer_nor_windows(tmp_path):
    write_run(tmp_path / "result", "normal")
    code = f"""if True:
        import runpy, sys
        sys.argv = ["plot.py", "result/normal-b64-s0"]
        try:
            runpy.run_path({str(PLOT)!r}, run_name="__main__")
        except SystemExit as end:
            assert end.code == 0
        names = {{"chainer", "chainermn", "mpi4py", "cupy", "matplotlib.pyplot"}}
        assert not names.intersection(sys.modules)
        """
    done = script("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote result/loss.png and loss.pdf\n" in done.stdout
    before = files(tmp_path)
    assert len(before) == 3 + 8
    # The same runs give the same bytes.
    assert plot.main([str(tmp_path)]) == 0
    assert files(tmp_path) == before


def test_script_whose_reader_ends(tmp_path):
    write_run(tmp_path, "normal")
    reader, writer = os.pipe()
    os.close(reader)
    done = script(PLOT, tmp_path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_script_fails_in_one_line(tmp_path):
    done = script(PLOT, "away", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("plot.py: error: away: no such file or directory")
    assert done.stderr.count("\n") == 1


# Lines


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """Figures of all the runs that the paper's figures need."""
    return draw(paper_runs(tmp_path_factory.mktemp("paper"), PAPER))


@pytest.mark.parametrize(
    ("stem", "x", "test", "train", "label"),
    [
        ("loss", (1, 2, 3), (2.25, 1.125, 0.75), (2, 1, 2 / 3), "Epoch"),
        ("accuracy", (1, 2, 3), (25, 50, 43.75), (37.5, 62.5, 75), "Epoch"),
        (
            "accuracy_time",
            (10, 20, 30),
            (25, 50, 43.75),
            (37.5, 62.5, 75),
            "Training time [s]",
        ),
    ],
)
def test_train_dashed_and_test_solid(tmp_path, stem, x, test, train, label):
    write_run(tmp_path, "normal")
    figure = draw(tmp_path)[stem]
    lines = lines_of(figure.axes[0])
    assert set(lines) == {"-", "--"}
    for dashes, values in (("-", test), ("--", train)):
        (line,) = lines[dashes]
        numpy.testing.assert_allclose(line.get_xdata(), x)
        numpy.testing.assert_allclose(line.get_ydata(), values)
    assert figure.axes[0].get_xlabel() == label
    legend = legend_of(figure)
    assert legend["test"][1] == "-"
    assert legend["train (in test mode)"][1] == "--"


@pytest.mark.parametrize(
    ("seconds", "unit", "name"), [(100.0, 60, "min"), (3600.0, 3600, "h")]
)
def test_long_times(tmp_path, seconds, unit, name):
    write_run(tmp_path, "normal", log=epochs(seconds=seconds))
    ax = draw(tmp_path)["accuracy_time"].axes[0]
    assert ax.get_xlabel() == f"Training time [{name}]"
    wanted = seconds * numpy.arange(1, 4) / unit
    numpy.testing.assert_allclose(ax.get_lines()[0].get_xdata(), wanted)


def test_legend_names_networks(command):
    drawn = draw(command[0])
    for stem in ("loss", "accuracy", "accuracy_time", "fig3"):
        legend = legend_of(drawn[stem])
        for network, wanted in COLOURS.items():
            colour, _, marker = legend[f"{network}, batch 64"]
            assert same_color(colour, wanted)
            assert marker == "o"


def test_batch_sizes_differ_in_shade_and_marker(paper):
    legend = legend_of(paper["fig5"])
    small, large = legend["normalBN, batch 4"], legend["normalBN, batch 64"]
    assert small[2] != large[2]
    assert numpy.mean(to_rgb(small[0])) > numpy.mean(to_rgb(large[0])) + 0.1
    assert same_color(large[0], COLOURS["normalBN"])


def hue(colour):
    hue, _, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    return round(hue, 2) if saturation else None


def test_colours_same_in_all_figures(paper):
    assert len(paper) == 8
    for stem, figure in paper.items():
        seen = {}
        for label, (colour, *_) in legend_of(figure).items():
            network = label.partition(",")[0]
            if network in COLOURS:
                seen.setdefault(network, set()).add(hue(colour))
        for ax in figure.axes:
            labels = [
                t.get_text() for t in (*ax.get_yticklabels(), *ax.get_xticklabels())
            ]
            networks = [label.partition(",")[0] for label in labels]
            networks = [network for network in networks if network in COLOURS]
            # The paper's own bars are hatched.
            bars = [bar for bar in ax.patches if not bar.get_hatch()]
            assert len(bars) == len(networks)
            for network, bar in zip(networks, bars):
                seen.setdefault(network, set()).add(hue(bar.get_facecolor()))
        absent = {"noBN"} if stem in ("fig4", "fig5") else set()
        assert set(seen) == set(COLOURS) - absent
        for network, hues in seen.items():
            assert hues == {hue(COLOURS[network])}, (stem, network)


def test_lines_have_colours_of_legend(paper):
    for stem in ("loss", "accuracy", "accuracy_time", "fig3", "fig4", "fig5"):
        figure = paper[stem]
        drawn = {to_hex(line.get_color()) for ax in figure.axes for line in ax.lines}
        legend = legend_of(figure)
        keys = {"test", "train (in test mode)"}
        assert drawn == {to_hex(legend[label][0]) for label in set(legend) - keys}


def test_many_runs_have_a_panel_a_batch_size(paper):
    axes = paper["accuracy"].axes
    titles = [ax.get_title(loc="left") for ax in axes[:3]]
    assert titles == ["batch 2", "batch 4", "batch 64"]
    assert [len(ax.get_lines()) for ax in axes[:3]] == [2, 4, 6]
    assert len({ax.get_ylim() for ax in axes[:3]}) == 1
    assert len({ax.get_xlim() for ax in axes[:3]}) == 1


def test_each_model_has_its_figures(tmp_path):
    write_run(tmp_path, "normal", name="a")
    write_run(tmp_path, "multigpu", name="b", model="resnet20")
    write_run(tmp_path, "normal", name="c", model="googlenet", width=64)
    drawn = draw(tmp_path)
    models = {"GoogLeNet": 1, "ResNet-20": 1, "VGG16": 1}
    kinds = ("loss", "accuracy", "accuracy_time", "epoch_time")
    assert sorted(drawn) == sorted(f"{k}-{model}" for k in kinds for model in models)
    for name, figure in drawn.items():
        _, model = name.split("-", 1)
        caption = figure.get_supxlabel()
        assert model in caption
        assert not any(other in caption for other in models if other != model)


def test_settings_that_differ_are_named(tmp_path):
    write_run(tmp_path, "normal", width=16, name="a")
    write_run(tmp_path, "normal", width=64, name="b")
    drawn = draw(tmp_path)
    titles = [ax.get_title(loc="left") for ax in drawn["loss"].axes[:2]]
    assert titles == ["batch 64, width 16", "batch 64, width 64"]
    titles = [ax.get_title(loc="left") for ax in drawn["epoch_time"].axes]
    assert titles == ["width 16", "width 64"]


VARIANTS = {
    "multigpuBN": {"bn_group_size": None, "bn_layers": None},
    "multigpuBN (groups of 2)": {"bn_group_size": 2},
    "multigpuBN (front 4, rest none)": {"bn_layers": "front:4", "bn_rest": "none"},
    "multigpuBN as written": {"paper_allreduces": 2, "paper_backward": "exact"},
    "multigpuBN as written (1 all-reduce, local backward)": {
        "paper_allreduces": 1,
        "paper_backward": "local",
    },
    "GroupNorm": {"groups": 32},
    "GroupNorm (8 groups)": {"groups": 8},
    "WeightNorm": {"weight_norm_init": "norm"},
    "WeightNorm (data init)": {"weight_norm_init": "data"},
}
BN_OF = {"multigpuBN": "multigpu", "GroupNorm": "group", "WeightNorm": "weight"}


def test_options_of_a_normalization_make_networks_of_their_own(tmp_path):
    for i, (name, options) in enumerate(VARIANTS.items()):
        base = name.split(" (")[0]
        bn = BN_OF.get(base, "paper")
        write_run(tmp_path, bn, log=epochs("multigpu"), name=f"r{i}", **options)
    write_run(tmp_path, "normal")
    groups = groups_of(tmp_path)
    assert {group.name for group in groups} == {
        f"{name}, batch 64" for name in (*VARIANTS, "normalBN")
    }
    # in one panel, each in a colour of its own
    (ax,) = (a for a in draw(tmp_path)["accuracy"].axes if a.lines)
    assert len({line.get_color() for line in ax.lines}) == len(groups)
    # and all on the scale of normalBN, so that times compare
    ratios = [time_ratio(15, group, groups) for group in groups]
    assert ratios == [1.5] * len(groups)


def test_defaults_of_options_are_those_of_training():
    from chainer_crossbn.models import normalizations

    for name, options in normalizations.OPTIONS.items():
        assert network_of({"bn": name, **options}) == name
        for option in options:
            assert network_of({"bn": name, option: "other"}) != name


def test_diverging_run_leaves_axis_to_others(tmp_path):
    log = epochs()
    log[2]["validation/main/loss"] = 1e6
    write_run(tmp_path, "normal", log=log)
    write_run(tmp_path, "multigpu")
    assert draw(tmp_path)["loss"].axes[0].get_ylim()[1] < 10


# Bars


def bars_of(ax):
    ticks = [text.get_text() for text in ax.get_yticklabels()]
    return dict(zip(ticks, ax.patches)), [text.get_text() for text in ax.texts]


def test_epoch_times(command):
    (ax,) = draw(command[0])["epoch_time"].axes
    found, labels = bars_of(ax)
    widths = {name: bar.get_width() for name, bar in found.items()}
    assert widths == {
        "noBN, batch 64": 9,
        "normalBN, batch 64": 10,
        "multigpuBN, batch 64": 15,
    }
    assert labels == ["9.00 s   ×0.90", "10.0 s   ×1.00", "15.0 s   ×1.50"]


@pytest.mark.parametrize(
    "other", [{"batch": 4}, {"width": 64}, {"bn": "none"}, {"lr": 0.05}]
)
def test_ratio_only_to_comparable_normal(tmp_path, other):
    write_run(tmp_path, "multigpu")
    write_run(tmp_path, **{"bn": "normal", **other})
    labels = [t for ax in draw(tmp_path)["epoch_time"].axes for t in bars_of(ax)[1]]
    assert "15.0 s" in labels


@pytest.mark.parametrize("name", ["seed", "threads", "out", "gpu", "cpu", "data"])
def test_ratio_whatever_the_circumstances(tmp_path, name):
    write_run(tmp_path, "multigpu", **{name: 1})
    write_run(tmp_path, "normal", **{name: 2})
    (ax,) = draw(tmp_path)["epoch_time"].axes
    assert "15.0 s   ×1.50" in bars_of(ax)[1]


def test_epoch_time_is_median(tmp_path):
    log = epochs()
    for entry in log:  # The first epoch compiles.
        entry["train_time"] += 1000
    write_run(tmp_path, "normal", log=log)
    (ax,) = draw(tmp_path)["epoch_time"].axes
    assert bars_of(ax)[0]["normalBN, batch 64"].get_width() == 10


def test_long_epoch_in_plain_digits(tmp_path):
    write_run(tmp_path, "normal", log=epochs(seconds=1234.0))
    (ax,) = draw(tmp_path)["epoch_time"].axes
    assert bars_of(ax)[1] == ["1,234 s   ×1.00"]


def test_final_accuracies(tmp_path):
    for seed, shift in enumerate((-0.1, 0.0, 0.2)):
        write_run(tmp_path, "normal", log=epochs("normal", shift), seed=seed)
    write_run(tmp_path, "none")
    figure = bars.finals(groups_of(tmp_path), "Finals")
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [43.75, 43.75]
    ticks = [text.get_text() for text in ax.get_yticklabels()]
    assert ticks == ["noBN, batch 64", "normalBN, batch 64"]
    (whisker,) = ax.containers[-1].lines[2]
    ends = [segment[:, 0].tolist() for segment in whisker.get_segments()]
    assert ends[-1] == pytest.approx([33.75, 63.75])
    assert any("median of 1 seed or 3 seeds" in text for text in words_of(figure))


def test_trend_with_range(tmp_path):
    write_run(tmp_path, "normal")
    line = trends.Line("normalBN", "#0072B2", {64: [3.0], 2: [1.0, 5.0, 2.0]})
    panel = trends.Panel("Batch size", "Value", [line])
    figure = trends.draw([panel], "Title", groups_of(tmp_path), ["a note"])
    (ax,) = figure.axes
    (drawn,) = ax.get_lines()
    assert drawn.get_xydata().tolist() == [[2, 2], [64, 3]]
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices.tolist()
    assert [2, 1] in corners and [2, 5] in corners
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["2", "64"]
    assert words_of(figure)[-1].endswith("a note")


# The paper's figures

FIG4 = (("normal", 64), ("multigpu", 2))
FIG5 = (("normal", 4), ("multigpu", 4), ("normal", 64))


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        (BATCH_64, ["fig3", "table2"]),
        (FIG4, ["fig4"]),
        (FIG5, ["fig5"]),
        (PAPER, ["fig3", "fig4", "fig5", "table2"]),
        ((*BATCH_64, ("chainer", 64)), ["fig3", "table2"]),
        (BATCH_64[1:], []),
        (FIG5[:2], []),
        ((("normal", 2), ("multigpu", 64)), []),
        ((("none", 4), ("normal", 4), ("multigpu", 4)), []),
    ],
)
def test_figures_of_paper(tmp_path, pairs, wanted):
    drawn, missing = plot.draw(groups_of(paper_runs(tmp_path, pairs)))
    assert [name for name, _ in drawn] == FILES_64[:4] + wanted
    left = {"fig3", "fig4", "fig5", "table2"}.difference(wanted)
    assert {line.partition(" not drawn: needs ")[0] for line in missing} == left


@pytest.mark.parametrize(
    ("stem", "labels"),
    [
        ("fig3", ["noBN, batch 64", "normalBN, batch 64", "multigpuBN, batch 64"]),
        ("fig4", ["normalBN, batch 64", "multigpuBN, batch 2"]),
        ("fig5", ["normalBN, batch 4", "normalBN, batch 64", "multigpuBN, batch 4"]),
    ],
)
def test_figure_of_paper_shows_its_runs(paper, stem, labels):
    figure = paper[stem]
    loss, accuracy = figure.axes[:2]
    assert loss.get_ylabel() == "Loss"
    assert accuracy.get_ylabel() == "Accuracy [%]"
    for ax in (loss, accuracy):
        assert {k: len(v) for k, v in lines_of(ax).items()} == {
            "-": len(labels),
            "--": len(labels),
        }
    keys = ["test", "train (in test mode)"]
    assert sorted(legend_of(figure)) == sorted(labels + keys)


def test_table2_shows_seconds_and_ratios(command):
    (ax,) = draw(command[0])["table2"].axes
    heights = [bar.get_height() for bar in ax.patches]
    wanted = [33 / 36, 748 / 804, 1, 1, 51 / 36, 1211 / 804]
    numpy.testing.assert_allclose(heights, wanted)
    assert [text.get_text() for text in ax.texts] == [
        "33.0 s\n×0.92",
        "748 s\n×0.93",
        "36.0 s\n×1.00",
        "804 s\n×1.00",
        "51.0 s\n×1.42",
        "1,211 s\n×1.51",
    ]
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names == ["noBN", "normalBN", "multigpuBN"]


def test_table2_needs_finished_runs(tmp_path):
    paper_runs(tmp_path, BATCH_64[:2])
    write_run(tmp_path, "multigpu", log=epochs("multigpu", length=2))
    drawn, missing = plot.draw(groups_of(tmp_path))
    assert "fig3" in dict(drawn) and "table2" not in dict(drawn)
    assert "table2 not drawn: its runs are unfinished" in missing


def test_runs_of_different_settings_make_no_figure(tmp_path):
    paper_runs(tmp_path, BATCH_64[:2])
    write_run(tmp_path, "multigpu", width=64)
    drawn, missing = plot.draw(groups_of(tmp_path))
    assert "fig3" not in dict(drawn)
    assert "fig3 not drawn: its runs differ in width" in missing


def test_each_scale_has_its_figure(tmp_path):
    for width in (16, 64):
        for bn, batch in BATCH_64:
            write_run(tmp_path / str(width), bn, batch, width=width)
    names = list(draw(tmp_path))[4:]
    assert names == [f"{n}-width-{w}" for n in ("fig3", "table2") for w in (16, 64)]


def test_learning_rate_may_follow_batch_size(tmp_path):
    write_run(tmp_path, "normal", 64, lr=0.01)
    write_run(tmp_path, "multigpu", 2, lr=0.001767766952966369)
    legend = legend_of(draw(tmp_path)["fig4"])
    assert "multigpuBN, batch 2 (lr 0.001768)" in legend


def test_learning_rate_may_not_differ_at_one_batch_size(tmp_path):
    paper_runs(tmp_path, BATCH_64[:2])
    write_run(tmp_path, "multigpu", lr=0.02)
    assert "fig3" not in draw(tmp_path)


# Seeds


@pytest.fixture
def seeds(tmp_path):
    for seed, shift in enumerate((0.0, 0.125, 0.03125)):
        write_run(tmp_path, "normal", seed=seed, log=epochs(shift=shift))
    return tmp_path


def test_seeds_make_median_and_band(seeds):
    (group,) = groups_of(seeds)
    assert len(group.runs) == 3
    figure = draw(seeds)["accuracy"]
    ax = figure.axes[0]
    (line,) = lines_of(ax)["-"]
    numpy.testing.assert_allclose(line.get_ydata(), [28.125, 53.125, 46.875])
    bands = [band.get_paths()[0].vertices for band in ax.collections]
    assert len(bands) == 2  # train and test
    test = bands[1]
    for epoch, low in zip((1, 2, 3), (25, 50, 43.75)):
        ys = test[test[:, 0] == epoch, 1]
        numpy.testing.assert_allclose((ys.min(), ys.max()), (low, low + 12.5))
    assert any("median of 3 seeds" in text for text in words_of(figure))


def test_one_seed_has_no_band(tmp_path):
    write_run(tmp_path, "normal")
    figure = draw(tmp_path)["accuracy"]
    assert not figure.axes[0].collections
    assert not any("seed" in text for text in words_of(figure))


def test_unfinished_seed_counts_as_far_as_it_goes(seeds):
    write_run(seeds, "normal", seed=3, log=epochs(shift=0.25, length=1))
    (line,) = lines_of(draw(seeds)["accuracy"].axes[0])["-"]
    wanted = [25 + (3.125 + 12.5) / 2, 53.125, 46.875]
    numpy.testing.assert_allclose(line.get_ydata(), wanted)


def test_seeds_make_bars_with_range(tmp_path):
    for seed, seconds in enumerate((8.0, 11.0, 10.0)):
        write_run(tmp_path, "normal", seed=seed, log=epochs(seconds=seconds))
    (ax,) = draw(tmp_path)["epoch_time"].axes
    assert bars_of(ax)[0]["normalBN, batch 64"].get_width() == 10
    (whisker,) = ax.collections
    numpy.testing.assert_allclose(whisker.get_segments()[0][:, 0], [8, 11])


# Virtual ranks


@pytest.fixture
def mixed(tmp_path):
    """The networks at batch size 64, and a seed each on two processes, far slower."""
    paper_runs(tmp_path, BATCH_64)
    for bn, _ in BATCH_64:
        log = epochs(bn, shift=0.125, seconds=1000.0)
        write_run(tmp_path, bn, log=log, seed=1, virtual_ranks=4, threads=2)
    return tmp_path


def test_virtual_ranks_have_no_ratio(mixed, capsys, unsaved):
    assert plot.main([str(mixed)]) == 0
    out = capsys.readouterr().out
    for bn, ratio in (("none", "0.900"), ("normal", "1.000"), ("multigpu", "1.500")):
        real, virtual = (row_of(out, f"{bn}-b64-s{seed}") for seed in (0, 1))
        assert (real[3], real[-1]) == ("8", ratio)
        assert (virtual[3:5], virtual[-1]) == (["8", "(2x4)"], "-")
    assert out.splitlines().count("times not compared: 3 runs have virtual ranks") == 1
    _, _, table2 = out.partition("Table 2 ")
    assert row_of(table2, "multigpuBN")[1:3] == ["51.0", "1.417"]


def test_virtual_ranks_are_left_out_of_times(mixed):
    drawn = draw(mixed)
    assert list(drawn) == FILES_64
    (ax,) = drawn["epoch_time"].axes
    assert bars_of(ax)[1] == ["9.00 s   ×0.90", "10.0 s   ×1.00", "15.0 s   ×1.50"]
    lines = drawn["accuracy_time"].axes[0].get_lines()
    assert max(line.get_xdata().max() for line in lines) == 45
    assert not any("seed" in text for text in words_of(drawn["accuracy_time"]))
    heights = [bar.get_height() for bar in drawn["table2"].axes[0].patches[::2]]
    numpy.testing.assert_allclose(heights, [33 / 36, 1, 51 / 36])


def test_virtual_ranks_count_as_seeds_of_accuracy(mixed):
    drawn = draw(mixed)
    keys = {"test", "train (in test mode)"}
    for stem in ("accuracy", "fig3"):
        assert set(legend_of(drawn[stem])) - keys == {f"{n}, batch 64" for n in COLOURS}
        assert any("median of 2 seeds" in text for text in words_of(drawn[stem]))
    (line, *_) = lines_of(drawn["accuracy"].axes[0])["-"]
    numpy.testing.assert_allclose(line.get_ydata(), [31.25, 56.25, 50])


def test_nothing_but_virtual_ranks(tmp_path):
    """On one process or two: the runs make one figure still."""
    for (bn, batch), virtual in zip(BATCH_64, (8, 4, 8)):
        write_run(tmp_path, bn, batch, virtual_ranks=virtual)
    drawn, missing = plot.draw(groups_of(tmp_path))
    assert [name for name, _ in drawn] == ["loss", "accuracy", "fig3"]
    assert "times not compared: 3 runs have virtual ranks" in missing
    assert "table2 not drawn: its runs have virtual ranks" in missing


# Logs


def test_unfinished_run(tmp_path, capsys, unsaved):
    write_run(tmp_path, "normal", log=epochs(length=2))
    assert plot.main([str(tmp_path)]) == 0
    row = row_of(capsys.readouterr().out, "normal-b64-s0")
    assert row[4:7] == ["2/3", "50.00", "50.00"]
    assert row[-1] == "unfinished"
    figure = draw(tmp_path)["loss"]
    (line,) = lines_of(figure.axes[0])["-"]
    numpy.testing.assert_allclose(line.get_xdata(), [1, 2])
    caption = words_of(figure)[-1]
    assert "unfinished: normalBN, batch 64 (2 epochs)" in caption


def edited(number, **values):
    log = epochs()
    log[number - 1].update(values)
    return log


def without(key):
    log = epochs()
    del log[1][key]
    return log


ACCURACY = "validation/main/accuracy"
LOSS = "validation/main/loss"


@pytest.mark.parametrize(
    "value",
    ["NaN", "null", "-Infinity", "1e300", pytest.param("9" * 400, id="400 digits")],
)
def test_loss_that_is_no_number(tmp_path, capsys, unsaved, value):
    text = json.dumps(edited(2, **{LOSS: "X"})).replace('"X"', value)
    write_run(tmp_path, "normal", log=text)
    assert plot.main([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "NaN loss from epoch 2" in out
    figure = draw(tmp_path / "normal-b64-s0")["loss"]
    (line,) = lines_of(figure.axes[0])["-"]
    numpy.testing.assert_array_equal(line.get_ydata(), [2.25, numpy.nan, 0.75])
    assert "loss is NaN from: normalBN, batch 64 (epoch 2)" in words_of(figure)[-1]


def test_nothing_but_nan(tmp_path, capsys):
    log = epochs()
    for entry in log:
        for key in entry:
            if key.startswith(("train/", "validation/")):
                entry[key] = float("nan")
    write_run(tmp_path, "normal", log=log)
    write_run(tmp_path, "multigpu", log=log)
    assert plot.main([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert row_of(out, "normal-b64-s0")[5:8] == ["-", "-", "-"]


def test_best_passes_over_nan(tmp_path, capsys, unsaved):
    write_run(tmp_path, "normal", log=edited(3, **{ACCURACY: float("nan")}))
    assert plot.main([str(tmp_path)]) == 0
    row = row_of(capsys.readouterr().out, "normal-b64-s0")
    assert row[5:7] == ["-", "50.00"]


BROKEN_LOGS = {
    "empty": (b"", "log is empty"),
    "blank": (b" \n", "log is empty"),
    "no epoch": ("[]", "no epoch"),
    "cut off": (json.dumps(epochs())[:-40], "not valid JSON"),
    "not JSON": ("epoch loss\n1 2.3\n", "not valid JSON"),
    "binary": (b"\x93NUMPY\xff\xfe\x00", "not valid JSON"),
    "deep": ("[" * 100000, "not valid JSON"),
    "object": ("{}", "not a list"),
    "list of numbers": ("[1, 2]", "no object"),
    "no test loss": (without(LOSS), LOSS),
    "no train accuracy": (without("train/main/accuracy"), "train/main/accuracy"),
    "no time": (without("train_time"), "train_time"),
    "words": (edited(2, **{ACCURACY: "0.5"}), "not a number"),
    "truth": (edited(2, **{ACCURACY: True}), "not a number"),
    "list": (edited(2, **{LOSS: [1.0]}), "not a number"),
    "per cent": (edited(2, **{ACCURACY: 50.0}), "outside 0..1"),
    "negative accuracy": (edited(2, **{ACCURACY: -0.5}), "outside 0..1"),
    "infinite accuracy": (edited(2, **{ACCURACY: float("inf")}), "outside 0..1"),
    "epoch twice": (edited(2, epoch=1), "'epoch' does not rise"),
    "epoch 0": (edited(1, epoch=0), "'epoch' is not a positive"),
    "time falls": (edited(3, train_time=1.0), "'train_time' does not rise"),
    "time stands": (edited(2, elapsed_time=12.0), "'elapsed_time' does not rise"),
    "no seconds": (edited(1, train_time=0), "'train_time' is not a positive"),
    "time NaN": (edited(2, train_time=float("nan")), "'train_time' is not a positive"),
    "time infinite": (edited(3, elapsed_time=1e300), "'elapsed_time' is not a pos"),
}


@pytest.mark.parametrize("name", BROKEN_LOGS)
def test_broken_log(tmp_path, name):
    log, reason = BROKEN_LOGS[name]
    good = write_run(tmp_path, "normal")
    broken = write_run(tmp_path, "multigpu", log=log)
    runs, skipped = reading.find_runs([tmp_path])
    assert [run.directory for run in runs] == [good]
    ((path, why),) = skipped
    assert path == broken
    assert reason in why
    assert "\n" not in why


def changed(*where, **values):
    def change(path):
        content = json.loads(path.read_text())
        part = content
        for key in where:
            part = part[key]
        part.update(values)
        path.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Path.unlink, "args.json is missing"),
        (lambda path: path.write_text(""), "args.json is empty"),
        (lambda path: path.write_text("{"), "args.json is not valid JSON"),
        (lambda path: path.write_text("[]"), "not written by chainer_crossbn"),
        (changed(program="another"), "not written by chainer_crossbn"),
        (changed(arguments=None), "no arguments"),
        (changed(n_ranks=0), "n_ranks"),
        (changed(n_ranks="8"), "n_ranks"),
        (changed(virtual_ranks=0), "virtual_ranks"),
        (changed("arguments", bn=None), "'bn'"),
        (changed("arguments", batchsize=-64), "'batchsize'"),
        (changed("arguments", batchsize=True), "'batchsize'"),
        (changed("arguments", batchsize=64.5), "'batchsize'"),
    ],
)
def test_broken_arguments(tmp_path, change, reason):
    path = write_run(tmp_path, "normal")
    change(path / "args.json")
    runs, skipped = reading.find_runs([tmp_path])
    assert not runs
    ((where, why),) = skipped
    assert where == path
    assert reason in why


def test_log_missing(tmp_path):
    path = write_run(tmp_path, "normal")
    (path / "log").unlink()
    assert reading.find_runs([tmp_path]) == ([], [(path, "log is missing")])


def test_log_too_large(tmp_path):
    path = write_run(tmp_path, "normal")
    os.truncate(path / "log", 2**26)
    assert reading.find_runs([tmp_path]) == ([], [(path, "log is too large")])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_log_is_pipe(tmp_path):
    path = write_run(tmp_path, "normal")
    (path / "log").unlink()
    os.mkfifo(path / "log")
    ((_, why),) = reading.find_runs([tmp_path])[1]
    assert why == "log is not a regular file"


def test_foreign_names(tmp_path, capsys):
    """Neither a network that is not known nor odd text stops the drawing."""
    write_run(tmp_path, "normal", name="$a_{b}$ \x1b[31m", model="$x^")
    log = epochs("normal")
    write_run(tmp_path, "new\n$^$\ud800" + "x" * 1000, log=log, name="b", model="$y_")
    assert plot.main([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert row_of(out, "$a_{b}$")[:3] == ["$a_{b}$", "?[31m", "normalBN"]
    assert max(map(len, out.splitlines())) < 200


# Finding runs


def test_finds_runs_at_any_depth(tmp_path):
    wanted = [
        write_run(tmp_path / "a" / "b", "normal"),
        write_run(tmp_path / "a", "multigpu"),
        write_run(tmp_path / "c", "none"),
    ]
    (tmp_path / "c" / "notes.txt").write_text("mine")
    write_run(tmp_path / ".trash", "none", 2)
    runs, skipped = reading.find_runs([tmp_path])
    assert {run.directory for run in runs} == set(wanted)
    assert not skipped


def test_each_run_once(tmp_path):
    path = write_run(tmp_path / "runs", "normal")
    (tmp_path / "again").symlink_to(path)
    paths = [tmp_path, path, str(path), path / "log", path / "args.json"]
    runs, skipped = reading.find_runs([*paths, tmp_path / "again"])
    assert len(runs) == 1
    assert not skipped


def test_links_in_circles(tmp_path, monkeypatch):
    write_run(tmp_path, "normal")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path)
    visited = []
    scandir = os.scandir

    def counting(path):
        visited.append(path)
        assert len(visited) < 100
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    assert len(reading.find_runs([tmp_path])[0]) == 1
    assert visited


def test_run_tells_network_and_batch_size(tmp_path):
    write_run(tmp_path, "multigpu", 2)
    ((run,), _) = reading.find_runs([tmp_path])
    assert (run.network, run.batch, run.n_ranks, run.finished) == (
        "multigpu",
        2,
        8,
        True,
    )
    assert (run.train_time, run.total_time, run.epoch_time) == (45, 51, 15)
