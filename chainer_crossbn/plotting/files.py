"""Write figures, and never over a user's file."""

import os

from chainer_crossbn.command_line import UsageError

PROGRAM = "plot.py"
_DPI = 150
_SIGNATURE = b"chainer_crossbn plot.py"
# Suffix -> metadata that tell our figures from a user's file. Without a date the same
# runs give the same bytes.
_METADATA = {
    "png": {"Software": _SIGNATURE.decode()},
    "pdf": {"Creator": _SIGNATURE.decode(), "CreationDate": None},
}
SUFFIXES = tuple(_METADATA)


def write(drawn, folder, suffixes=SUFFIXES):
    """Write figures, all of them or, where one can't be, none.

    Args:
        drawn (list): Pairs of a file name's stem and a
            :class:`matplotlib.figure.Figure`.
        folder (pathlib.Path): Where to; made if need be.
        suffixes (tuple of str): Of :data:`SUFFIXES`.

    Returns:
        list of pathlib.Path: The files, figure by figure.

    Raises:
        UsageError: If a file of another program would be overwritten.
        OSError: If the files can't be written.
    """
    targets = [
        (folder / f"{name}.{suffix}", figure, _METADATA[suffix])
        for name, figure in drawn
        for suffix in suffixes
    ]
    for target, _, _ in targets:
        if target.exists() and _SIGNATURE not in target.read_bytes():
            raise UsageError(
                f"{target} is no figure of {PROGRAM} and is not overwritten; move it "
                "or choose another --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for target, figure, metadata in targets:
        _save(figure, target, metadata)
    return [target for target, _, _ in targets]


def _save(figure, target, metadata):
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        figure.savefig(temporary, dpi=_DPI, metadata=metadata)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
