"""NCCL's all-reduce by MPI, which waits where NCCL has the device wait."""

import ctypes
import os
import time
import zlib

import numpy

from cupy.cuda import _state

available = os.environ.get("STAND_IN_NCCL", "1") == "1"
NCCL_SUM = 0
NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64 = 6, 7, 8
NCCL_FLOAT, NCCL_DOUBLE = NCCL_FLOAT32, NCCL_FLOAT64
_DTYPES = {NCCL_FLOAT32: numpy.float32, NCCL_FLOAT64: numpy.float64}
_SECONDS = 2.0  # in which the other ranks come, or never


class NcclError(RuntimeError):
    pass


def get_version():
    return 23203


get_build_version = get_version


def get_unique_id():
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank.to_bytes(4, "little") + os.urandom(124)


class NcclCommunicator:
    """The rank that made the identifier gathers the others, as NCCL has it."""

    def __init__(self, ndev, commId, rank):
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        root, tag = int.from_bytes(commId[:4], "little"), zlib.crc32(commId) & 0x7FFF
        if world.rank == root:
            ranks = {rank: root}
            while len(ranks) < ndev:
                ranks.update([world.recv(tag=tag)])
            for other in ranks.values():
                if other != root:
                    world.send(ranks, other, tag)
        else:
            world.send((rank, world.rank), root, tag)
            ranks = world.recv(source=root, tag=tag)
        group = world.group.Incl([ranks[i] for i in range(ndev)])
        self._comm = world.Create_group(group, tag)
        devices = self._comm.allgather(
            (MPI.Get_processor_name(), _state.Device().pci_bus_id)
        )
        if len(set(devices)) < ndev:
            raise NcclError("NCCL_ERROR_INVALID_USAGE: duplicate GPU detected")

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        assert op == NCCL_SUM
        current = _state.current_stream()
        assert stream == current.ptr
        _state.record.append(("all-reduce", count))
        dtype = numpy.dtype(_DTYPES[datatype])
        size = count * dtype.itemsize
        received = numpy.empty(count, dtype)
        request = self._comm.Iallreduce(
            numpy.frombuffer(ctypes.string_at(sendbuf, size), dtype), received
        )
        deadline = time.monotonic() + _SECONDS
        while not (current.stuck or request.Test()):
            current.stuck = time.monotonic() > deadline
        if not current.stuck:
            ctypes.memmove(recvbuf, received.ctypes.data, size)
