"""Write figures and texts, but never over a user's file."""

import io
import itertools
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from chainer_crossbn.errors import UsageError
from chainer_crossbn.runs.files import replacing

PROGRAM = "plot.py"
_DPI = 150
SIGNATURE = b"chainer_crossbn plot.py"
# Suffix -> metadata that mark our figures. Without a date, the same runs give the same
# bytes.
_METADATA = {
    "png": {"Software": SIGNATURE.decode()},
    "pdf": {"Creator": SIGNATURE.decode(), "CreationDate": None},
}
SUFFIXES = tuple(_METADATA)


def write(
    drawn: list[tuple[str, Figure]],
    folder: Path,
    suffixes: tuple[str, ...] = SUFFIXES,
    texts: Iterable[tuple[str, str]] = (),
) -> list[list[Path]]:
    """Write figures and texts: all of them, or none if a file is in the way.

    Args:
        drawn (list): Pairs of a file name's stem and a figure.
        folder (pathlib.Path): Directory to write into; created if it is missing.
        suffixes (tuple of str): Of :data:`SUFFIXES`.
        texts (iterable): Pairs of a file's name and a text that holds
            :data:`SIGNATURE`.

    Returns:
        list of list of pathlib.Path: The files of each figure, and of each text.

    Raises:
        UsageError: If a file of another program would be overwritten, or the files
            can't be written.
    """
    texts = list(texts)
    targets = [
        *([folder / f"{name}.{suffix}" for suffix in suffixes] for name, _ in drawn),
        *([folder / name] for name, _ in texts),
    ]
    flat = list(itertools.chain(*targets))
    try:
        _check_replaceable(flat)
        contents = [
            _encoded(figure, suffix) for _, figure in drawn for suffix in suffixes
        ]
        contents += [text.encode() for _, text in texts]
        folder.mkdir(parents=True, exist_ok=True)
        for target, content in zip(flat, contents):
            with replacing(target) as file:
                file.write(content)
    except OSError as error:
        raise UsageError(
            f"can't write into {folder}: {error.strerror or error}; choose another "
            "--out"
        ) from None
    return targets


def _check_replaceable(targets):
    for target in targets:
        if target.exists() and SIGNATURE not in target.read_bytes():
            raise UsageError(
                f"{target} was not written by this package and is not overwritten; "
                "move it or choose another --out"
            )


def _encoded(figure, suffix):
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=_DPI, metadata=_METADATA[suffix])
    return buffer.getvalue()
