"""Run what is missing, as many runs at once as are wanted."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import costs, jobs, machine, records
from chainer_crossbn.runs.files import lock_directory, set_aside
from chainer_crossbn.runs.run_directory import strip_record

_REFUSED = 2
_LOOK_EVERY = 0.05
_PATIENCE = 10
# More ranks than cores, and root, as which containers run; for Open MPI.
_OPEN_MPI = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


class Stopped(Exception):
    """A signal has stopped the runner; ``signum`` tells which."""

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


class _Process(NamedTuple):
    job: jobs.Job
    process: subprocess.Popen
    output: Path
    started: float


def run(planned, out, data=None, at_once=1, say=print):
    """Run what is missing of some runs.

    Finished ones are left alone. What is broken is renamed and run again. A run that
    fails is left as it is, and the others go on. Runs whose times count have the
    machine to themselves, and come last.

    Args:
        planned (list of Job): All the runs, finished ones included.
        out (str): Directory that gathers them.
        data (str or None): Value of ``--data``.
        at_once (int): Number of runs with virtual ranks that are made at once.
        say (callable): Takes lines that tell of the progress.

    Returns:
        list of Job: Those that have failed.

    Raises:
        UsageError: If another runner is at work in ``out``, or one of the runs is
            refused.
        Stopped: By SIGINT or SIGTERM, once all processes of the present runs are ended.
    """
    with _locked(out) as descriptor, _signals() as signals:
        machine.record(out)
        todo, measured = _look(planned, out)
        todo.sort(key=lambda job: job.timed)
        if len(todo) < len(planned):
            say(f"{len(planned) - len(todo)} of {len(planned)} runs are there already")
        runner = _Runner(out, data, descriptor, len(todo), measured, say)
        try:
            while todo or runner.active:
                while todo and runner.has_room(todo[0], at_once):
                    runner.start(todo.pop(0), todo, at_once)
                runner.collect()
                if signals:
                    raise Stopped(signals[0])
                time.sleep(_LOOK_EVERY)
        finally:
            runner.end()
    return runner.failed


class _Runner:
    """The runs that are being made."""

    def __init__(self, out, data, descriptor, n_runs, measured, say):
        self.active = []
        self.failed = []
        self._out = out
        self._data = data
        self._descriptor = descriptor
        self._n_runs = n_runs
        self._n_started = 0
        self._measured = measured
        self._say = say

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
            at_once (int): How many are made at once.
        """
        self._n_started += 1
        left = costs.in_words(costs.left([job, *later], self._measured, at_once))
        self._say(f"[{self._n_started}/{self._n_runs}] {job.name} ({left} left)")
        if records.state(job, self._out) == records.BROKEN:
            aside = set_aside(job.directory(self._out))
            self._say(f"  run again; what was there is {aside}")
        output = Path(f"{job.directory(self._out)}.output")
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
        """Take note of the runs that have ended."""
        for ended in [a for a in self.active if a.process.poll() is not None]:
            self.active.remove(ended)
            job = ended.job
            problem = self._problem(ended)
            if problem:
                self.failed.append(job)
                self._say(f"  {job.name} FAILED: {problem}")
                continue
            strip_record(job.directory(self._out))
            duration = time.monotonic() - ended.started
            self._measured.append((job, duration))
            accuracy = records.accuracy(job, self._out)
            self._say(
                f"  {job.name}: test accuracy {accuracy:.1%}, in "
                f"{costs.in_words(duration)}"
            )

    def _problem(self, ended):
        """Return why a run failed, or ``None``."""
        job, process, output, _ = ended
        is_finished = records.state(job, self._out) == records.FINISHED
        if is_finished and (process.returncode == 0 or job.ends_early):
            output.unlink(missing_ok=True)  # it was of use while the run lasted
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


def _look(planned, out):
    """Return what is to be run, and the durations of what is there."""
    todo, measured = [], []
    for job in planned:
        if records.state(job, out) != records.FINISHED:
            todo.append(job)
            continue
        strip_record(job.directory(out))
        done = records.read(job, out)
        if done is not None:
            measured.append((job, costs.START + done.total_time))
    return todo, measured


def _end(process):
    """End all processes of a run that has not ended by itself."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _locked(out):
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
def _signals():
    """Yield a list that SIGINT and SIGTERM are put into instead of ending us."""
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
