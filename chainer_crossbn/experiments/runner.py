"""Run what is missing, one run after the other."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from chainer_crossbn.command_line import UsageError
from chainer_crossbn.experiments import costs, lock, machine, records

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


def run(planned, out, data=None, say=print):
    """Run what is missing of some runs.

    Finished ones are left alone. What is broken is renamed and run anew. A run that
    fails is left as it is, and the others go on.

    Args:
        planned (list of Job): All the runs, finished ones included.
        out (str): Directory that gathers them.
        data (str or None): Value of ``--data``.
        say (callable): Takes lines that tell of the progress.

    Returns:
        list of Job: Those that have failed.

    Raises:
        UsageError: If another runner is at work in ``out``, or one of the runs is
            refused.
        Stopped: By SIGINT or SIGTERM, once all processes of the present run are ended.
    """
    failed = []
    with lock.held(out) as descriptor, _signals() as signals:
        machine.record(out)
        todo, measured = _look(planned, out)
        if len(todo) < len(planned):
            say(f"{len(planned) - len(todo)} of {len(planned)} runs are there already")
        for index, job in enumerate(todo):
            left = costs.in_words(costs.left(todo[index:], measured))
            say(f"[{index + 1}/{len(todo)}] {job.name} ({left} left)")
            if records.state(job, out) == records.BROKEN:
                say(f"  taken up anew; what was there is {records.set_aside(job, out)}")
            started = time.monotonic()
            problem = _run_one(job, out, data, descriptor, signals)
            done = None if problem else records.read(job, out)
            if done is None:
                failed.append(job)
                say(f"  FAILED: {problem or 'its log lacks epochs'}")
                continue
            records.strip(job, out)
            measured.append((job, time.monotonic() - started))
            duration = costs.in_words(measured[-1][1])
            say(f"  test accuracy {done.final_accuracy:.1%}, in {duration}")
    return failed


def _look(planned, out):
    """Return what is to be run, and the durations of what is there."""
    todo, measured = [], []
    for job in planned:
        done = records.read(job, out)
        if done is None:
            todo.append(job)
        else:
            records.strip(job, out)
            measured.append((job, costs.START + done.total_time))
    return todo, measured


def _run_one(job, out, data, descriptor, signals):
    """Run one to its end; return why it failed, or ``None``."""
    output = Path(f"{job.directory(out)}.output")
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(output, "wb") as file:
        process = subprocess.Popen(
            job.command(out, data),
            env={**_OPEN_MPI, **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[descriptor],
        )
        try:
            while process.poll() is None:
                if signals:
                    raise Stopped(signals[0])
                time.sleep(_LOOK_EVERY)
        finally:
            _end(process)
    if process.returncode == 0:
        output.unlink(missing_ok=True)  # it was of use while the run lasted
        return None
    lines = output.read_text(errors="replace").strip().splitlines() or ["no output"]
    if process.returncode == _REFUSED:
        output.unlink()
        raise UsageError(f"{job.name}: {lines[-1]}")
    return f"status {process.returncode}, {lines[-1]} (all of it in {output})"


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
