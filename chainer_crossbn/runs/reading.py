"""Read and check run directories.

This is the one reader of ``args.json``, ``log`` and ``statistics.json``: resuming a
run, figures and experiments use it. It does not import Chainer.
"""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from chainer_crossbn.runs.networks import network_of

PROGRAM = "chainer_crossbn"
TRAIN_LOSS = "train/main/loss"
TRAIN_ACCURACY = "train/main/accuracy"
TEST_LOSS = "validation/main/loss"
TEST_ACCURACY = "validation/main/accuracy"

# What rises from one entry of the log to the next, and by how much at least.
_CLOCKS = {"epoch": 1, "train_time": 1e-6, "elapsed_time": 1e-6}
_LOSSES = (TRAIN_LOSS, TEST_LOSS)
_ACCURACIES = (TRAIN_ACCURACY, TEST_ACCURACY)

# A real log of thousands of epochs is far smaller; a server's log may be anything.
_MAX_BYTES = 32 * 2**20
_LARGEST_CLOCK = 1e12
_LARGEST_LOSS = 1e30


class BrokenRun(ValueError):
    """A directory has no run that can be read; the message is a line that says why."""


@dataclass(frozen=True, eq=False)
class Run:
    """One training run, as its directory has it.

    Attributes:
        directory (pathlib.Path): The run directory.
        record (dict): The content of ``args.json``.
        columns (dict): Key of the log -> float64 array with one value per epoch.
            Losses and accuracies may be NaN.
        finished (bool): Whether the run made all its epochs.
    """

    directory: Path
    record: dict[str, Any]
    columns: dict[str, np.ndarray]
    finished: bool

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the run, as in ``args.json``."""
        return self.record["arguments"]

    @property
    def n_ranks(self) -> int:
        """Number of ranks, virtual ones included."""
        return self.record["n_ranks"]

    @property
    def virtual_ranks(self) -> int:
        """Ranks per process."""
        return self.record.get("virtual_ranks", 1)

    @property
    def device(self) -> str:
        """``"CPU"`` or ``"GPU"``; empty where not recorded."""
        return str(self.record.get("device") or "")

    @property
    def dataset(self) -> dict[str, Any]:
        """Name, sizes and checksum of the data; empty where not recorded."""
        dataset = self.record.get("dataset")
        return dataset if isinstance(dataset, dict) else {}

    @property
    def network(self) -> str:
        """The network, as :mod:`~chainer_crossbn.runs.networks` names it."""
        return network_of(self.arguments)

    @property
    def batch(self) -> int:
        """Mini-batch size per rank."""
        return self.arguments["batchsize"]

    @property
    def epochs_done(self) -> int:
        """The last epoch in the log."""
        return int(self.columns["epoch"][-1])

    @property
    def train_time(self) -> float:
        """Seconds spent in training iterations so far."""
        return float(self.columns["train_time"][-1])

    @property
    def total_time(self) -> float:
        """Seconds of the whole run so far, evaluation included."""
        return float(self.columns["elapsed_time"][-1])

    @property
    def epoch_time(self) -> float:
        """Seconds of training per epoch: the median over the epochs.

        The median keeps the first epoch, which warms up, from counting more in a
        short run than in a long one.
        """
        seconds = np.diff(self.columns["train_time"], prepend=0)
        return float(np.median(seconds / np.diff(self.columns["epoch"], prepend=0)))

    @property
    def final_accuracy(self) -> float:
        """Test accuracy after the last epoch in the log; 0 where it is NaN."""
        return float(np.nan_to_num(self.columns[TEST_ACCURACY][-1]))

    @property
    def nan_epoch(self) -> Optional[int]:
        """The first epoch with a loss of NaN, or None."""
        epochs = self.columns["epoch"][np.isnan(self.columns[TEST_LOSS])]
        return int(epochs[0]) if len(epochs) else None


def find_runs(
    paths: Iterable[Union[str, Path]],
) -> tuple[list[Run], list[tuple[Path, str]]]:
    """Read every run under the given paths.

    Args:
        paths: Run directories, directories above them, or files in a run directory.

    Returns:
        tuple: The list of :class:`Run`, sorted by directory, each once; and a list of
        (path, reason) for what looked like a run and could not be read.

    Raises:
        FileNotFoundError: If one of ``paths`` does not exist.
    """
    skipped: list[tuple[Path, str]] = []
    logs: dict[str, Path] = {}
    for path in paths:
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"{path}: no such file or directory; give run directories or "
                "directories above them"
            )
        for log in _logs_under(Path(path), skipped):
            logs.setdefault(os.path.realpath(log), log)
    runs = []
    for log in sorted(logs.values()):
        try:
            runs.append(read_run(log.parent))
        except BrokenRun as error:
            skipped.append((log.parent, str(error)))
    return runs, skipped


def read_run(directory: Path) -> Run:
    """Read the ``args.json`` and the log of a run.

    Args:
        directory (pathlib.Path): The run directory.

    Returns:
        Run: The run.

    Raises:
        BrokenRun: If either file is missing, unreadable or not what this package
            writes.
    """
    record = read_record(directory)
    columns = _checked_columns(read_json(directory / "log"))
    epochs = record["arguments"].get("epoch")
    finished = _is_count(epochs) and columns["epoch"][-1] >= epochs
    return Run(
        directory=directory,
        record=record,
        columns=columns,
        finished=finished or (directory / "model.npz").is_file(),
    )


def read_record(directory: Path) -> dict[str, Any]:
    """Read the ``args.json`` of a run.

    Args:
        directory (pathlib.Path): The run directory.

    Returns:
        dict: Its content. It has ``arguments`` with ``bn`` and ``batchsize``, and
        ``n_ranks``; ``virtual_ranks`` is a count if it is there.

    Raises:
        BrokenRun: If it is missing, unreadable or not what this package writes.
    """
    record = read_json(directory / "args.json")
    if not isinstance(record, dict) or record.get("program") != PROGRAM:
        raise BrokenRun(f"args.json was not written by {PROGRAM}")
    arguments = record.get("arguments")
    if not isinstance(arguments, dict):
        raise BrokenRun("args.json has no arguments")
    if not isinstance(arguments.get("bn"), str):
        raise BrokenRun("args.json: argument 'bn' is missing or no name")
    if not _is_count(arguments.get("batchsize")):
        raise BrokenRun("args.json: argument 'batchsize' is missing or no count")
    if not _is_count(record.get("n_ranks")):
        raise BrokenRun("args.json: 'n_ranks' is missing or no count")
    if not _is_count(record.get("virtual_ranks", 1)):
        raise BrokenRun("args.json: 'virtual_ranks' is no count")
    return record


def check_resumable(record: dict[str, Any]) -> None:
    """Check that a record has what it takes to resume its run.

    Args:
        record (dict): As :func:`read_record` returns it.

    Raises:
        BrokenRun: If not.
    """
    for name in ("model", "dataset"):
        if name not in record["arguments"]:
            raise BrokenRun(f"args.json: argument {name!r} is missing")
    for name in ("dataset", "versions"):
        if not isinstance(record.get(name), dict):
            raise BrokenRun(f"args.json: {name!r} is missing or damaged")
    # Logs that are passed on may lack the processes.
    ranks = record.get("ranks", [])
    if not isinstance(ranks, list) or not all(isinstance(r, dict) for r in ranks):
        raise BrokenRun("args.json: 'ranks' is damaged")


def read_statistics(directory: Path) -> dict[str, Any]:
    """Read the ``statistics.json`` of a run.

    Args:
        directory (pathlib.Path): The run directory.

    Returns:
        dict: ``test`` and ``layers``, as :func:`.run_directory.write_statistics` takes
        them; both empty if there is no such file, because the run ended early.

    Raises:
        BrokenRun: If it is unreadable.
    """
    path = directory / "statistics.json"
    return read_json(path) if path.exists() else {"test": {}, "layers": []}


def _logs_under(path, skipped):
    if not path.is_dir():
        return [path.with_name("log")]

    def note(error):
        skipped.append((error.filename, _reason(error)))

    logs = []
    visited = set()
    for folder, subfolders, files in os.walk(path, onerror=note, followlinks=True):
        # Symbolic links may form a circle.
        if os.path.realpath(folder) in visited:
            subfolders.clear()
            continue
        visited.add(os.path.realpath(folder))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if "log" in files or "args.json" in files:
            logs.append(Path(folder, "log"))
    return logs


def read_json(path: Path) -> Any:
    """Read a JSON file of a run directory.

    Raises:
        BrokenRun: If it is missing, unreadable or not valid JSON.
    """
    content = _read_bytes(path)
    if not content.strip():
        raise BrokenRun(f"{path.name} is empty")
    try:
        return json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno}"
        raise BrokenRun(f"{path.name} is not valid JSON ({where})") from None
    except (ValueError, RecursionError):
        raise BrokenRun(f"{path.name} is not valid JSON") from None


def _read_bytes(path):
    try:
        # Opening a named pipe would block.
        if path.exists() and not path.is_file():
            raise BrokenRun(f"{path.name} is not a regular file")
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise BrokenRun(f"{path.name} is missing") from None
    except OSError as error:
        raise BrokenRun(f"{path.name} cannot be read: {_reason(error)}") from None
    if len(content) > _MAX_BYTES:
        raise BrokenRun(f"{path.name} is too large")
    return content


def _checked_columns(log):
    if not isinstance(log, list):
        raise BrokenRun("log is not a list of epochs")
    if not log:
        raise BrokenRun("log has no epoch yet")
    if not all(isinstance(entry, dict) for entry in log):
        raise BrokenRun("log has an entry that is no object")
    columns = {key: _column(log, key) for key in (*_CLOCKS, *_LOSSES, *_ACCURACIES)}
    for key, least in _CLOCKS.items():
        values = columns[key]
        if not np.all((values > 0) & (values < _LARGEST_CLOCK)):
            raise BrokenRun(f"log: {key!r} is not a positive number in range")
        if np.any(np.diff(values, prepend=0) < least):
            raise BrokenRun(f"log: {key!r} does not rise from epoch to epoch")
    for key in _ACCURACIES:
        if np.any((columns[key] < 0) | (columns[key] > 1)):
            raise BrokenRun(f"log: {key!r} is outside 0..1")
    for key in _LOSSES:
        columns[key][~(np.abs(columns[key]) < _LARGEST_LOSS)] = np.nan
    return columns


def _column(log, key):
    values = []
    for entry in log:
        if key not in entry:
            raise BrokenRun(f"log lacks {key!r}")
        values.append(_number(entry[key], key))
    return np.array(values, dtype=np.float64)


def _number(value, key):
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BrokenRun(f"log: {key!r} is not a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _reason(error):
    return error.strerror or type(error).__name__
