"""One screen that tells what was seen."""

from chainer_crossbn.commands.doctor import checks
from chainer_crossbn.commands.doctor.findings import verdict

_LABEL = 13
_NODES = 4


def lines(versions, seen, choice, times, disk, findings):
    """Return the screen.

    Args:
        versions (list of str): Of Python, its packages and the MPI library.
        seen (list of dict): Of each rank (:mod:`checks`).
        choice (list of str): What training would compute on and communicate by.
        times (list of timing.Time): Of all-reduces; empty with one rank.
        disk (dict): As :func:`disk.look` returns it.
        findings (list of findings.Finding): What is wrong.

    Returns:
        list of str: Lines.
    """
    told = _block("versions", versions)
    told += _block("ranks", _ranks(seen))
    told += _block("GPUs", _gpus(seen[0]["gpus"]))
    told += _block("training", choice)
    told += _block("all-reduce", [_time(t) for t in times] or ["none, with one rank"])
    told += _block("results", [_disk(disk)])
    told += [f"{level}: {words}" for level, words in findings]
    return [*told, f"doctor: {verdict(findings)}"]


def _block(label, texts):
    labels = [label, *[""] * len(texts)]
    return [f"{head:{_LABEL}}{text}" for head, text in zip(labels, texts)]


def _ranks(seen):
    """Tell of nodes, once of those that are alike."""
    hosts = checks.by_host(seen)
    alike = {}
    for host, ranks in hosts.items():
        alike.setdefault(_node(seen, ranks), []).append(host)
    nodes = "1 node" if len(hosts) == 1 else f"{len(hosts)} nodes"
    told = [f"{len(seen)} on {nodes}"]
    groups = sorted(alike.items(), key=lambda item: -len(item[1]))
    for what, names in groups[:_NODES]:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        many = "" if len(names) == 1 else f" ({len(names)} nodes)"
        told.append(f"{shown}{many}: {what}")
    if len(groups) > _NODES:
        told.append(f"and {len(groups) - _NODES} other kinds of node")
    return told


def _node(seen, ranks):
    first, cores = seen[ranks[0]], checks.cores_of(seen, ranks)
    n, threads = len(ranks), max(1, cores // len(ranks))
    gpus = len(first["gpus"]["devices"])
    return (
        f"{_many(n, 'rank')}, {_many(cores, 'core')}, {_many(threads, 'thread')} a "
        f"rank, {_many(gpus, 'GPU')}; /dev/shm {_size(first['shm'])}"
    )


def _gpus(found):
    if found["why"] is not None:
        told = [f"none that Chainer can use: {found['why']}"]
        told = [text if len(text) < 300 else text[:297] + "..." for text in told]
    else:
        told = [found["versions"]]
        names = [
            f"{d['name']} ({d['capability'] // 10}.{d['capability'] % 10}, "
            f"{_size(d['memory'])})"
            for d in found["devices"]
        ]
        told += [f"{names.count(name)} x {name}" for name in sorted(set(names))]
    return [*told, f"kernel driver {found['driver']}"] if found["driver"] else told


def _time(time):
    rate = time.size / time.seconds / 1e9
    return (
        f"{_bytes(time.size):>8} {1e6 * time.seconds:9.1f} us {rate:8.3f} GB/s  "
        f"({time.what})"
    )


def _disk(found):
    if found["error"] is not None:
        return f"{found['path']}: {found['error']}"
    return (
        f"{found['path']}: {found['free'] / 1e9:.0f} GB free, written at "
        f"{found['rate'] / 1e6:.0f} MB/s"
    )


def _bytes(size):
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def _size(size):
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _many(number, word):
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
