"""Run on two nodes of two ranks, which are namespaces of one machine; for root.

    python tests/clusters/nodes.py                      # MPICH, all cases
    python tests/clusters/nodes.py --mpi openmpi exactness training

Each case prints what it found, and ends in an AssertionError where that is not right.
``--python`` names the interpreter of the ranks: the one of an environment with the
MPI library, whose launcher is beside it.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import machines

ROOT = Path(__file__).resolve().parents[2]
RANKS, RANKS_PER_NODE = 4, 2
SMALL = (
    *("--dataset", "synthetic", "--train-size", 640, "--test-size", 80, "--width", 8),
    *("--fc-units", 32, "--batchsize", 4, "--cpu", "--threads", 1, "--bn", "multigpu"),
)
LATE_SECONDS = 0.05
# Rank 3, on the second node, is late at every step.
LATE = f"""
import sys, time
from mpi4py import MPI
from chainer_crossbn.commands.train.main import main
from chainer_crossbn.training.updaters import GlobalUpdater
update = GlobalUpdater.update_core
def late(updater):
    time.sleep({LATE_SECONDS})
    update(updater)
if MPI.COMM_WORLD.rank == 3:
    GlobalUpdater.update_core = late
sys.exit(main())
"""
PLACE = """
import socket
import chainer_crossbn, chainermn
comm = chainermn.create_communicator("naive")
place = comm.rank, comm.inter_rank, comm.intra_rank, comm.inter_size, comm.intra_size
print(*place, socket.gethostname(), flush=True)
"""


class Runner:
    """Starts programs on the ranks of a cluster.

    Args:
        cluster (machines.Cluster): The nodes.
        python (str): Interpreter of the ranks.
        mpi (str): ``mpich`` or ``openmpi``.
    """

    def __init__(self, cluster, python, mpi):
        self.cluster = cluster
        self.mpi = mpi
        self._python = python
        hosts = [f"{name}:{RANKS_PER_NODE}" for name in machines.NAMES]
        launcher = os.path.join(os.path.dirname(python), "mpiexec")
        network = {"CHAINER_CROSSBN_TIMEOUT": "20", "OPENBLAS_NUM_THREADS": "1"}
        if mpi == "mpich":
            words = ["-launcher", "ssh", "-launcher-exec", cluster.enter]
            words += ["-hosts", ",".join(hosts)]
            network["UCX_TLS"] = "tcp,self"
            network["UCX_NET_DEVICES"] = machines.INTERFACE
        else:
            words = ["--host", ",".join(hosts), "--allow-run-as-root"]
            words += ["--prtemca", "plm_ssh_agent", cluster.enter]
            words += ["--prtemca", "plm_ssh_no_tree_spawn", "1"]
            words += ["--prtemca", "prte_if_include", machines.INTERFACE]
            words += ["--mca", "pml", "ob1", "--mca", "btl", "self,sm,tcp"]
            words += ["--mca", "btl_tcp_if_include", machines.INTERFACE]
            words += ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
            words += [w for name in network for w in ("-x", name)]
        self._network = network
        self.on_one_node = [launcher, "-n", str(RANKS), python]
        if mpi == "openmpi":
            self.on_one_node[1:1] = ["--allow-run-as-root", "--oversubscribe"]
        self._start = [launcher, *map(str, words), "-n", str(RANKS), python]

    def start(self, *words):
        """Start a Python program on all ranks; its launcher runs on the first node."""
        command = " ".join(
            f"'{word}'" if str(word) != "" else "''" for word in [*self._start, *words]
        )
        return subprocess.Popen(
            [self.cluster.enter, machines.NAMES[0], command],
            env={**os.environ, "PYTHONPATH": str(ROOT), **self._network},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words, timeout=400):
        """Return exit status, output and seconds of a program on all ranks."""
        started = time.monotonic()
        process = self.start(*words)
        try:
            out, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_all(self.ranks(), [process.pid])
            raise
        return process.returncode, out, error, time.monotonic() - started

    def train(self, name, *words, program=("train_cifar.py",)):
        """Return the directory of a run that comes to its end."""
        where = ("--out", self.cluster.private, "--name", name)
        status, _, error, _ = self.run(*program, *SMALL, *words, *where)
        assert status == 0, error
        return self.cluster.private / name

    def ranks(self):
        """Return the PID of each rank that trains now, by its number."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (path / "cmdline").read_bytes()
                if str(self.cluster.private).encode() not in command:
                    continue
                if not command.startswith(self._python.encode()):
                    continue
                told = (path / "environ").read_bytes()
                rank = re.search(rb"(?:PMI|OMPI_COMM_WORLD)_RANK=(\d+)", told)
                if rank:
                    found[int(rank[1])] = int(path.name)
        return found


def kill_all(ranks, others=()):
    for pid in [*ranks.values(), *others]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def places(runner):
    """ChainerMN sees two nodes of two ranks."""
    status, out, error, _ = runner.run("-c", PLACE)
    assert status == 0, error
    lines = sorted(out.splitlines())
    assert lines == [
        "0 0 0 2 2 node0",
        "1 0 1 2 2 node0",
        "2 1 0 2 2 node1",
        "3 1 1 2 2 node1",
    ], out
    return "rank, inter_rank, intra_rank, nodes, ranks a node, host: " + "; ".join(
        lines
    )


def exactness(runner):
    """The exactness table holds between nodes."""
    status, out, error, seconds = runner.run(
        "-m", "pytest", "-q", "tests/ranks/exactness_cases.py"
    )
    assert status == 0, out[-3000:] + error[-3000:]
    passed = re.search(r"(\d+) passed", out)[1]
    return f"{passed} cases pass in {seconds:.0f} s"


def doctor(runner):
    """The doctor sees two nodes, and times the wire."""
    before = runner.cluster.carried()
    status, out, error, seconds = runner.run("-m", "chainer_crossbn", "doctor")
    assert status in (0, 1), out + error
    assert "4 on 2 nodes" in out, out
    carried = runner.cluster.carried() - before
    # Of each of the largest vectors half at least.
    assert carried > 3 * (8 << 20), carried
    return (
        f"exit status {status} after {seconds:.1f} s, {carried / 1e6:.0f} MB over the "
        f"wire; all-reduces: {times(out)}"
    )


def times(screen):
    rows = re.findall(r"(\d+ (?:B|MiB)) +([\d.]+) us", screen)
    return ", ".join(f"{size} {float(us):.0f} us" for size, us in rows)


def training(runner):
    """A run learns as on one node; the second node has no disk in common."""
    log = json.loads((runner.train("whole", "--epoch", 3) / "log").read_text())
    losses = [entry["main/loss"] for entry in log]
    accuracy = log[-1]["validation/main/accuracy"]
    here = subprocess.run(
        [*runner.on_one_node, "train_cifar.py", *map(str, SMALL), "--epoch", "3"]
        + ["--out", str(runner.cluster.private), "--name", "one-node"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "run: " in here.stdout
    other = json.loads((runner.cluster.private / "one-node" / "log").read_text())
    apart = max(abs(a - b["main/loss"]) / a for a, b in zip(losses, other))
    assert apart < 1e-2
    return (
        f"losses {', '.join(f'{loss:.4f}' for loss in losses)}, test accuracy "
        f"{accuracy:.3f}; losses at most {apart:.1e} from those on one node"
    )


def killed(runner):
    """A rank is killed: all end at once, and --resume goes on."""
    words = (*SMALL, "--epoch", 12, "--out", runner.cluster.private, "--name", "killed")
    process = runner.start("train_cifar.py", *words, "--resume", "auto")
    log = runner.cluster.private / "killed" / "log"
    wait_for(lambda: log.exists() and len(json.loads(log.read_text())) >= 2, process)
    ranks = runner.ranks()
    assert sorted(ranks) == [0, 1, 2, 3]
    os.kill(ranks[3], signal.SIGKILL)
    started = time.monotonic()
    error = process.communicate(timeout=60)[1]
    seconds = time.monotonic() - started
    assert process.returncode != 0
    wait_for(lambda: not runner.ranks(), None, 10)
    status, out, again, _ = runner.run("train_cifar.py", *words, "--resume", "auto")
    assert status == 0, again
    after = re.search(r"continuing after iteration (\d+)", out)
    assert len(json.loads(log.read_text())) == 12
    lines = [line for line in error.splitlines() if re.search("signal|KILLED", line)]
    said = lines[0] if lines else ""
    return (
        f"rank 3 killed: all ended after {seconds:.1f} s with exit status "
        f"{process.returncode} ({said.strip(' =')!r}), none left; --resume went on "
        f"after iteration {after[1]} to the end"
    )


def stopped(runner):
    """A rank is stopped: all end at the time limit, and its place is told."""
    words = ("--epoch", 1000, "--out", runner.cluster.private, "--name", "stopped")
    process = runner.start("train_cifar.py", *SMALL, *words)
    log = runner.cluster.private / "stopped" / "log"
    wait_for(log.exists, process)
    ranks = runner.ranks()
    os.kill(ranks[3], signal.SIGSTOP)
    started = time.monotonic()
    try:
        error = process.communicate(timeout=90)[1]
    finally:
        kill_all({3: ranks[3]})
    seconds = time.monotonic() - started
    assert process.returncode != 0
    wait_for(lambda: not runner.ranks(), None, 10)
    said = next(line for line in error.splitlines() if "rank 3" in line)
    return f"rank 3 stopped: all ended after {seconds:.0f} s of 20: {said}"


def late_rank(runner):
    """A rank is late at each step: the profile shows that the others wait for it."""
    usual = profile(runner.train("usual", "--epoch", 3, "--profile"))
    program = ("-c", LATE)
    late = profile(runner.train("late", "--epoch", 3, "--profile", program=program))
    waits = [
        [of["BN wait"][r] + of["all-reduce wait"][r] for r in range(RANKS)]
        for of in (usual, late)
    ]
    more = [after - before for before, after in zip(*waits)]
    assert all(w > 0.5 * 1e3 * LATE_SECONDS for w in more[:3]), waits
    assert max(more[3], 0) < 0.5 * 1e3 * LATE_SECONDS, waits
    return (
        f"rank 3 is {1e3 * LATE_SECONDS:.0f} ms late at each step; ms of an iteration "
        f"in which ranks 0 to 3 wait: {in_ms(waits[0])} without, {in_ms(waits[1])} with"
    )


def profile(run):
    """Return component -> milliseconds of an iteration of each rank, last epoch."""
    content = json.loads((run / "profile.json").read_text())
    of_ranks = content["epochs"][-1]["by_rank"]
    return {
        name: [us / 1e3 for us in of]
        for name, of in zip(content["components"], of_ranks)
    }


def in_ms(numbers):
    return ", ".join(f"{number:.1f}" for number in numbers)


def transfers(runner, name):
    """Profile a run; tell what the collectives of an iteration take."""
    found = profile(runner.train(name, "--epoch", 2, "--profile"))
    parts = ("BN wait", "BN transfer", "all-reduce wait", "all-reduce transfer")
    total = sum(sum(of) for of in found.values()) / RANKS
    told = [f"{part} {sum(found[part]) / RANKS:.1f}" for part in parts]
    return f"an iteration {total:.0f} ms: {', '.join(told)}"


def wait_for(condition, process, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.1)


CASES = {f.__name__: f for f in (places, doctor, exactness, training, killed, stopped)}
CASES["late_rank"] = late_rank
WIRES = {
    "passed on by hand": {"delay": 0.0},
    "1 ms late each way": {"delay": 1e-3},
    "5 ms late each way": {"delay": 5e-3},
    "100 Mbit/s": {"rate": "100mbit"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mpi", choices=("mpich", "openmpi"), default="mpich")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=", ".join([*CASES, "wires"])
    )
    args = parser.parse_args()
    unknown = {*args.cases} - {*CASES, "wires"}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("namespaces want root")
    cases = args.cases or [*CASES, "wires"]
    # So that nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with machines.made(ROOT) as cluster:
        runner = Runner(cluster, args.python, args.mpi)
        with cluster.wire():
            for name in [name for name in CASES if name in cases]:
                print(f"{name}: {CASES[name](runner)}", flush=True)
        if "wires" in cases:
            for number, (what, wire) in enumerate(WIRES.items()):
                with cluster.wire(**wire):
                    print(f"wire {what}: {doctor(runner)}", flush=True)
                    print(f"    {transfers(runner, f'wire-{number}')}", flush=True)


if __name__ == "__main__":
    main()
