"""Run what is missing, several runs at once where their times don't count."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import costs, machine, records
from chainer_crossbn.experiments.jobs import Job
from chainer_crossbn.runs.files import lock_directory, set_aside
from chainer_crossbn.runs.run_directory import strip_record

_REFUSED = 2
_POLL_SECONDS = 0.05
_SECONDS_TO_END = 10
# More ranks than cores, and root, as which containers run; for Open MPI.
_OPEN_MPI = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


class Stopped(Exception):
    """A signal has stopped the runner.

    Attributes:
        signum (int): The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class _Process(NamedTuple):
    job: Job
    process: subprocess.Popen
    output: Path
    started: float


def run(
    plan: list[Job],
    out: str,
    data: Optional[str] = None,
    at_once: int = 1,
    report: Callable[[str], None] = print,
) -> list[Job]:
    """Run what is missing of a plan.

    Finished runs are left alone. Broken ones are renamed and run again. If a run fails,
    the others continue. Timed runs have the machine to themselves, and come last.

    Args:
        plan (list of Job): All the runs, finished ones included.
        out (str): Directory that contains them.
        data (str or None): Value of ``--data``.
        at_once (int): Number of runs with virtual ranks at a time.
        report (callable): Takes lines about the progress.

    Returns:
        list of Job: The runs that failed.

    Raises:
        UsageError: If another runner is active in ``out``, or one of the runs is
            refused.
        Stopped: By SIGINT or SIGTERM, after all processes of the active runs have
            ended.
    """
    with _locked(out) as descriptor, _signals() as signals:
        machine.record(out)
        todo, measured = _todo(plan, out)
        todo.sort(key=lambda job: job.timed)
        if len(todo) < len(plan):
            report(f"{len(plan) - len(todo)} of {len(plan)} runs are there already")
        runner = _Runner(
            out=out,
            data=data,
            descriptor=descriptor,
            n_runs=len(todo),
            measured=measured,
            report=report,
        )
        try:
            while todo or runner.active:
                while todo and runner.has_room(todo[0], at_once):
                    runner.start(todo.pop(0), todo, at_once)
                runner.collect()
                if signals:
                    raise Stopped(signals[0])
                time.sleep(_POLL_SECONDS)
        finally:
            runner.end()
    return runner.failed


class _Runner:
    """The active runs."""

    def __init__(self, out, data, descriptor, n_runs, measured, report):
        self.active = []
        self.failed = []
        self._out = out
        self._data = data
        self._descriptor = descriptor
        self._n_runs = n_runs
        self._n_started = 0
        self._measured = measured
        self._report = report

    def has_room(self, job, at_once):
        """Return whether a run can start beside the active ones."""
        if job.timed or any(active.job.timed for active in self.active):
            return not self.active
        return len(self.active) < at_once

    def start(self, job, later, at_once):
        """Start a run.

        Args:
            job (Job): The run.
            later (list of Job): The runs after it, for the estimate of the time left.
            at_once (int): Number of runs at a time.
        """
        self._n_started += 1
        seconds = costs.estimate_left([job, *later], self._measured, at_once)
        self._report(
            f"[{self._n_started}/{self._n_runs}] {job.name} "
            f"({costs.format_seconds(seconds)} left)"
        )
        directory = job.directory(self._out)
        if records.state(job, self._out) == records.BROKEN:
            aside = set_aside(directory)
            self._report(f"  run again; the old directory is {aside}")
        output = Path(f"{directory}.output")
        output.parent.mkdir(parents=True, exist_ok=True)
        with open(output, "wb") as file:
            process = subprocess.Popen(
                job.command(self._out, self._data),
                env={**_OPEN_MPI, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[self._descriptor],
            )
        self.active.append(_Process(job, process, output, time.monotonic()))

    def collect(self):
        """Record the runs that have ended."""
        for ended in [a for a in self.active if a.process.poll() is not None]:
            self.active.remove(ended)
            job = ended.job
            problem = self._problem(ended)
            if problem:
                self.failed.append(job)
                self._report(f"  {job.name} FAILED: {problem}")
                continue
            strip_record(job.directory(self._out))
            duration = time.monotonic() - ended.started
            self._measured.append((job, duration))
            accuracy = records.accuracy(job, self._out)
            self._report(
                f"  {job.name}: test accuracy {accuracy:.1%}, in "
                f"{costs.format_seconds(duration)}"
            )

    def _problem(self, ended):
        """Return why a run failed, or ``None``."""
        job, process, output, _ = ended
        is_finished = records.state(job, self._out) == records.FINISHED
        if is_finished and (process.returncode == 0 or job.ends_early):
            output.unlink(missing_ok=True)
            return None
        if process.returncode == 0:
            output.unlink(missing_ok=True)
            return "its log lacks epochs"
        lines = output.read_text(errors="replace").strip().splitlines()
        lines = lines or ["no output"]
        if process.returncode == _REFUSED:
            output.unlink()
            raise UsageError(f"{job.name}: {lines[-1]}")
        return f"status {process.returncode}, {lines[-1]} (all of it in {output})"

    def end(self):
        """End all processes of the runs that are active."""
        for active in self.active:
            _end(active.process)


def _todo(plan, out):
    """Return the missing runs, and pairs of a finished run and its seconds."""
    todo, measured = [], []
    for job in plan:
        if records.state(job, out) != records.FINISHED:
            todo.append(job)
            continue
        strip_record(job.directory(out))
        run = records.read(job, out)
        if run is not None:
            measured.append((job, costs.START + run.total_time))
    return todo, measured


def _end(process):
    """End all processes of a run, unless it has ended by itself."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _locked(out: str) -> Iterator[int]:
    """Hold the lock of the directory that contains the runs; yield its descriptor.

    The runs inherit the descriptor, so that a run that outlives the runner keeps the
    lock.
    """
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"can't write into {out}: {error.strerror}; choose another --out"
        ) from None
    descriptor = lock_directory(
        out,
        f"runs are being made in {out} already; wait for them, or choose another --out",
    )
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield a list that collects SIGINT and SIGTERM, which otherwise do nothing."""
    received = []
    before = {
        signum: signal.signal(signum, lambda signum, _: received.append(signum))
        for signum in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
