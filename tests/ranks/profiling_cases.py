"""Profiles of training over the ranks."""

import json
import time
from types import SimpleNamespace

import chainer
import chainermn
import numpy as np
import pytest

from chainer_crossbn.models import VGG16, normalizations
from chainer_crossbn.profiling import Profiler, Recorder, breakdown, clock, timeline
from chainer_crossbn.training.extensions import GlobalEvaluator
from chainer_crossbn.training.iterators import ShareIterator
from chainer_crossbn.training.updaters import GlobalUpdater, prime

CPU = chainer.get_device("@numpy")
CONVOLUTIONS = [
    f"/stages/{stage}/{index}"
    for stage, count in enumerate((2, 2, 3, 3, 3))
    for index in range(count)
]


@pytest.mark.parametrize("drift", [0.0, 0.01])
def test_clocks_are_converted_to_that_of_rank_zero(comm, drift):
    """The clock of rank r is ahead by 1000 r s, and may run faster."""
    rate = 1 + drift * comm.rank

    def own_clock():
        return 1000.0 * comm.rank + rate * time.perf_counter()

    before = clock.read(comm.mpi_comm, own_clock)
    earliest, here, latest = time.perf_counter(), own_clock(), time.perf_counter()
    time.sleep(0.01)
    after = clock.read(comm.mpi_comm, own_clock)
    converted = clock.to_rank_zero(np.array([here]), before, after)
    tolerance = before.uncertainty + after.uncertainty + 1e-6
    assert earliest - tolerance <= converted[0] <= latest + tolerance
    assert (before.uncertainty == 0) == (comm.rank == 0)


def test_waiting_ends_when_the_last_rank_comes(comm):
    """Of two collectives the last rank comes late to the first, rank 0 to the second.

    All ranks leave the first together, 1 s after the last came, and the second at once.
    """
    late = 7.0 if comm.rank == comm.size - 1 else 5.0 + 0.5 * comm.rank
    first = [late, 8.0]
    second = [20.0 if comm.rank == 0 else 10.0, 20.0]
    wait, transfer = breakdown.split_collectives(
        comm.mpi_comm, np.array([first, second])
    )
    np.testing.assert_allclose(wait, [7.0 - late, 20.0 - second[0]])
    np.testing.assert_allclose(transfer, [1.0, 0.0])


def test_a_collective_that_ends_before_the_last_rank_comes(comm):
    """Clocks that differ a little may show one. None of it is transfer."""
    spans = np.array([[float(comm.rank), comm.rank + 0.25]])
    wait, transfer = breakdown.split_collectives(comm.mpi_comm, spans)
    last = comm.rank == comm.size - 1
    np.testing.assert_allclose(wait, [0.0 if last else 0.25])
    np.testing.assert_allclose(transfer, [0.25 if last else 0.0])


def test_ranks_that_differ_in_their_collectives(comm):
    if comm.size == 1:
        pytest.skip("one rank can't differ")
    with pytest.raises(ValueError, match="different numbers"):
        breakdown.split_collectives(comm.mpi_comm, np.zeros((1 + comm.rank, 2)))


def profile(comm, tmp_path, bn, n_epochs=2, **options):
    """Return the file's content, the model, and bounds of the seconds of training."""
    state = np.random.RandomState(0)
    images = state.randint(0, 256, (6 * comm.size, 3, 32, 32)).astype(np.uint8)
    labels = state.randint(0, 10, len(images)).astype(np.int32)
    np.random.seed(0)
    model = VGG16(10, normalizations.create(bn, comm, **options), width=4, fc_units=8)
    recorder = Recorder(model, CPU)
    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.MomentumSGD(0.01), recorder.timed(comm)
    ).setup(model)
    prime(optimizer, comm)
    iterator = ShareIterator(len(images), 2, comm.rank, comm.size, seed=0)
    updater = GlobalUpdater(
        iterator, optimizer, images, labels, comm, CPU, context=recorder
    )
    evaluator = GlobalEvaluator(model, {"test": (images, labels)}, comm, CPU)
    profiler = Profiler(recorder, evaluator, comm)
    trainer = SimpleNamespace(updater=updater, out=str(tmp_path))
    bounds = [time.perf_counter()]
    profiler.initialize(trainer)
    bounds.append(time.perf_counter())
    for _ in range(3 * n_epochs):
        updater.update()
        if updater.is_new_epoch:
            evaluator()
            ended = time.perf_counter()
        profiler(trainer)
    bounds = ended - bounds[1], time.perf_counter() - bounds[0]
    content = None
    if comm.rank == 0:
        content = json.loads((tmp_path / "profile.json").read_text())
    return comm.mpi_comm.bcast(content), model, bounds


def collectives_of(content):
    """Return the layers of the collectives of the time line, by rank, in order."""
    line = content["timeline"]
    layers = {}
    for rank, kind, layer, _, _ in line["events"]:
        if kind == "BN transfer":
            layers.setdefault(rank, []).append(line["layers"][layer])
    return layers


@pytest.mark.parametrize(
    "bn, options, forward, backward",
    [
        ("multigpu", {}, 1, 1),
        ("paper", {"paper_allreduces": 2}, 2, 2),
        ("paper", {"paper_allreduces": 1, "paper_backward": "local"}, 1, 0),
        ("chainermn", {}, 1, 1),
    ],
)
def test_collectives_belong_to_their_layers(
    comm, tmp_path, bn, options, forward, backward
):
    content, _, _ = profile(comm, tmp_path, bn, **options)
    norms = [f"{path}/norm" for path in CONVOLUTIONS]
    expected = [path for path in norms for _ in range(forward)]
    expected += [path for path in reversed(norms) for _ in range(backward)]
    if comm.size == 1:
        expected = []
    layers = collectives_of(content)
    assert all(layers.get(rank, []) == expected for rank in range(comm.size)), layers


@pytest.mark.parametrize("bn", ["none", "normal", "multigpu", "weight"])
def test_components_add_up_to_the_time_of_training(comm, tmp_path, bn):
    content, _, (least, most) = profile(comm, tmp_path, bn, n_epochs=3)
    assert content["components"] == list(breakdown.COMPONENTS)
    assert [epoch["iterations"] for epoch in content["epochs"]] == [3, 3, 3]
    mine = [np.array(epoch["by_rank"])[:, comm.rank] for epoch in content["epochs"]]
    # 0.1 microseconds are left of each.
    assert least - 1e-4 <= 3e-6 * np.sum(mine) <= most + 1e-4
    for epoch in content["epochs"]:
        assert abs(sum(epoch["components"]) - epoch["wall"]) < 1
        by_rank = np.array(epoch["by_rank"])
        assert by_rank.shape == (len(breakdown.COMPONENTS), comm.size)
        np.testing.assert_allclose(by_rank.mean(axis=1), epoch["components"], atol=0.1)
        times = dict(zip(content["components"], epoch["components"]))
        assert min(times.values()) >= 0
        assert min(times[name] for name in ("data", "forward", "backward", "update"))
        has_norms = bn in ("normal", "multigpu")
        assert (times["BN arithmetic"] > 0) == has_norms
        communicates = bn == "multigpu" and comm.size > 1
        assert (times["BN transfer"] > 0) == communicates
        assert (times["BN wait"] > 0) == communicates
    assert np.shape(content["last_epoch"]) == (3, len(breakdown.COMPONENTS))


def test_layers_are_those_of_the_model(comm, tmp_path):
    content, model, _ = profile(comm, tmp_path, "multigpu")
    layers = content["epochs"][-1]["layers"]
    assert content["of_layers"] == list(breakdown.OF_LAYERS)
    # ReLU is done by the normalization's kernels.
    parts = [path + part for path in CONVOLUTIONS for part in ("/conv", "/norm")]
    # Max pooling is a stage's own.
    parts += [f"/stages/{stage}" for stage in range(5)]
    rest = ["/", "/fc6", "/fc7", "/fc8", "loss"]
    assert sorted(layers) == sorted(parts + rest)
    assert set(layers) <= {path for path, _ in model.namedlinks()} | {"loss"}
    for layer, (forward, backward, wait, transfer) in layers.items():
        assert forward > 0 and backward > 0, layer
        collects = layer.endswith("/norm") and comm.size > 1
        assert (transfer > 0) == collects, layer
        assert (wait > 0) == collects, layer


def test_events_lie_in_their_phase(comm, tmp_path):
    content, _, _ = profile(comm, tmp_path, "multigpu")
    line = content["timeline"]
    assert {event[0] for event in line["events"]} == set(range(comm.size))
    assert min(event[3] for event in line["events"]) == 0
    for rank in range(comm.size):
        mine = [event for event in line["events"] if event[0] == rank]
        phase = {kind: (start, start + span) for _, kind, _, start, span in mine}
        # The loss is weighted when the gradients are about to be taken.
        inside = {
            "function": (phase["forward"][0], phase["backward"][1]),
            "gradient": phase["backward"],
            "BN wait": (phase["forward"][0], phase["backward"][1]),
            "BN transfer": (phase["forward"][0], phase["backward"][1]),
            "all-reduce wait": phase["update"],
            "all-reduce transfer": phase["update"],
        }
        assert {kind for _, kind, *_ in mine} - set(inside) == set(timeline.PHASES)
        for _, kind, _, start, span in mine:
            if kind in inside:
                # Microseconds are whole.
                assert inside[kind][0] - 1 <= start, kind
                assert start + span <= inside[kind][1] + 1, kind
