"""Several nodes on one machine, by namespaces of Linux; for root.

A node has a network, a host name, a /dev/shm and System V IPC of its own. Between two
of them is a wire: a veth pair, as fast as memory, or one that passes frames on by hand
after a delay (kernels need not have netem).
"""

import contextlib
import ctypes
import fcntl
import heapq
import json
import multiprocessing
import os
import select
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

_TUNSETIFF, _TAP_WITHOUT_HEADER = 0x400454CA, 0x1002
_FRAME = 65536
_PR_SET_PDEATHSIG = 1
NAMES = ("node0", "node1")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
INTERFACE = "eth0"

# ip netns exec: the network; unshare: the rest. Launchers call it as they call ssh.
_ENTER = """\
#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
node=$1
shift
exec ip netns exec {prefix}$node unshare --uts --ipc --mount sh -c '
hostname "$1"
mount --bind {hosts} /etc/hosts
mount -t tmpfs -o size=2g tmpfs /dev/shm
if [ "$1" != node0 ]; then mount -t tmpfs tmpfs {private}; fi
cd {cwd}
eval "$2"' - "$node" "$*"
"""


class Cluster:
    """Two nodes.

    Attributes:
        enter (Path): A program that runs a command on a node, as ssh does.
        private (Path): A directory of which each node sees its own; what the first
            writes there is here, too.
    """

    def __init__(self, folder, cwd):
        self._prefix = f"crossbn{os.getpid()}-"
        self.private = folder / "private"
        self.private.mkdir()
        hosts = folder / "hosts"
        lines = [f"{a} {n}\n" for a, n in zip(ADDRESSES, NAMES)]
        hosts.write_text("127.0.0.1 localhost\n" + "".join(lines))
        self.enter = folder / "enter"
        self.enter.write_text(
            _ENTER.format(
                prefix=self._prefix, hosts=hosts, private=self.private, cwd=cwd
            )
        )
        self.enter.chmod(0o755)

    def start(self):
        """Make the nodes, without a wire."""
        for name in NAMES:
            _ip("netns", "add", self._prefix + name)
            self.ip(name, "link", "set", "lo", "up")

    def stop(self):
        """Remove the nodes, and what still runs on them."""
        for name in NAMES:
            words = ("ip", "netns", "pids", self._prefix + name)
            for pid in subprocess.run(words, capture_output=True).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", self._prefix + name], check=False)

    def ip(self, name, *words):
        """Run ``ip`` on a node."""
        _ip("-n", self._prefix + name, *words)

    def carried(self):
        """Return the bytes that the first node has sent to the other so far."""
        words = ("ip", "-j", "-s", "-n", self._prefix + NAMES[0], "link", "show", "dev")
        shown = subprocess.run([*words, INTERFACE], check=True, stdout=subprocess.PIPE)
        return json.loads(shown.stdout)[0]["stats64"]["tx"]["bytes"]

    @contextlib.contextmanager
    def wire(self, delay=None, rate=None):
        """Connect the nodes.

        Args:
            delay (float or None): Seconds that a frame takes; None: a veth pair.
            rate (str or None): Such as ``"100mbit"``: the bandwidth of a veth pair.
        """
        with _tapped(delay) if delay is not None else _veth() as ends:
            for name, address, end in zip(NAMES, ADDRESSES, ends):
                _ip("link", "set", end, "netns", self._prefix + name)
                self.ip(name, "link", "set", end, "name", INTERFACE)
                self.ip(name, "addr", "add", f"{address}/24", "dev", INTERFACE)
                self.ip(name, "link", "set", INTERFACE, "up")
                if rate is not None:
                    limit = ("rate", rate, "burst", "64kb", "latency", "100ms")
                    command = ("qdisc", "add", "dev", INTERFACE, "root", "tbf", *limit)
                    _run("tc", "-n", self._prefix + name, *command)
            try:
                yield
            finally:
                self.ip(NAMES[0], "link", "del", INTERFACE)


@contextlib.contextmanager
def made(cwd):
    """Make a cluster that goes with the block.

    Args:
        cwd (Path): Where commands run.

    Yields:
        Cluster: Without a wire.
    """
    with tempfile.TemporaryDirectory(prefix="crossbn-") as folder:
        cluster = Cluster(Path(folder), cwd)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def _veth():
    ends = _ends()
    _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    yield ends


@contextlib.contextmanager
def _tapped(delay):
    ends = _ends()
    taps = [_tap(name) for name in ends]
    forwarder = multiprocessing.Process(target=_forward, args=(taps, delay))
    forwarder.start()
    try:
        yield ends
    finally:
        forwarder.kill()
        forwarder.join()
        for tap in taps:
            os.close(tap)


def _ends():
    """Return names of devices that others do not use, of at most 15 characters."""
    return f"cb{os.getpid()}a", f"cb{os.getpid()}b"


def _tap(name):
    """Make a network device whose frames come from and go to a file descriptor."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), _TAP_WITHOUT_HEADER)
    fcntl.ioctl(tap, _TUNSETIFF, request)
    return tap


def _forward(taps, delay):
    """Pass frames from each end to the other after a delay, for ever."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 9)
    other = {taps[0]: taps[1], taps[1]: taps[0]}
    under_way, number = [], 0
    while True:
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, end, frame = heapq.heappop(under_way)
            # A full queue loses frames, as wires do.
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(end, frame)
        left = under_way[0][0] - now if under_way else None
        for tap in select.select(taps, [], [], left)[0]:
            with contextlib.suppress(BlockingIOError, OSError):
                while True:
                    frame = os.read(tap, _FRAME)
                    due = time.monotonic() + delay
                    heapq.heappush(under_way, (due, number, other[tap], frame))
                    number += 1


def _ip(*words):
    _run("ip", *words)


def _run(*words):
    subprocess.run(words, check=True)
