import collections
import os
import time

record = []
current_device = 0
_streams = collections.defaultdict(list)


def n_devices():
    return int(os.environ.get("STAND_IN_DEVICES", "4"))


def capability():
    return int(os.environ.get("STAND_IN_CAPABILITY", "80"))


def _first_device():
    """Return which of a machine's devices is the first that this rank sees."""
    if os.environ.get("STAND_IN_OWN") != "1":
        return 0
    ranks = (os.environ.get(name) for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK"))
    return n_devices() * int(next(filter(None, ranks)))


class Device:
    def __init__(self, device=None):
        self.id = current_device if device is None else int(device)
        self._before = []
        if self.id >= n_devices():
            raise ValueError(f"invalid device ordinal {self.id}")

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self):
        return hash(self.id)

    def use(self):
        global current_device
        current_device = self.id

    def __enter__(self):
        self._before.append(current_device)
        self.use()
        return self

    def __exit__(self, *args):
        global current_device
        current_device = self._before.pop()

    @property
    def pci_bus_id(self):
        return f"0000:{_first_device() + self.id:02x}:00.0"

    @property
    def attributes(self):
        return {"MultiProcessorCount": 2}

    @property
    def compute_capability(self):
        return "90"

    def synchronize(self):
        for stream in list(_streams[self.id]):
            stream.synchronize()


class Stream:
    """Work is done at once, but what comes to the host is there only after a wait."""

    null = None

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.ptr = 0 if null else id(self)
        self.stuck = False
        self._later = []
        self._before = []
        _streams[current_device].append(self)

    def later(self, function):
        self._later.append(function)

    def synchronize(self):
        record.append(("synchronize", "stream"))
        self.finish()

    def finish(self):
        assert not self.stuck, "a wait for a device that waits for another rank"
        self.advance()

    def advance(self):
        """Do what is before something else on the stream."""
        while self._later and not self.stuck:
            self._later.pop(0)()

    @property
    def done(self):
        return not self.stuck

    def use(self):
        _chosen[current_device] = self
        return self

    def __enter__(self):
        self._before.append(current_stream())
        return self.use()

    def __exit__(self, *args):
        _chosen[current_device] = self._before.pop()

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event


_chosen = {}


def current_stream():
    return _chosen.get(current_device, Stream.null)


Stream.null = Stream(null=True)


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._stream = None
        self._finished = True

    def record(self, stream=None):
        stream = stream or current_stream()
        self._stream = stream
        self._finished = False
        self.seconds = time.perf_counter()
        stream.later(self._finish)

    def _finish(self):
        self._finished = True

    @property
    def done(self):
        if not self._finished and not self._stream.stuck:
            self._stream.finish()
        return self._finished

    def synchronize(self):
        record.append(("synchronize", "event"))
        if not self._finished:
            self._stream.finish()
