"""A stand-in for cupy.cuda with NCCL, of one rank of a ThreadGroup, whose calls CuPy's own module would take too.

Arrays are the stand-in's. What is sent is written down.
"""

import ctypes
import types

import numpy as np

NULL_STREAM = 0


class Cuda:
    """calls: ("send" or "recv", numbers, code of the dtype, rank, stream) of one rank. gpus: of its machine."""

    def __init__(self, group, gpus=8):
        self.group, self.calls, self.stream = group, [], NULL_STREAM
        self.nccl, self.device = NCCL(self), None
        self.runtime = types.SimpleNamespace(
            getDeviceCount=lambda: gpus, deviceGetPCIBusId=lambda device: f"0000:{device:02x}:00.0"
        )

    def Device(self, number):
        return types.SimpleNamespace(id=number, use=lambda: setattr(self, "device", number))

    def get_current_stream(self):
        return types.SimpleNamespace(ptr=self.stream)


class NCCL:
    NCCL_FLOAT32, NCCL_FLOAT64 = 7, 8  # of nccl.h

    def __init__(self, cuda):
        self.cuda, self.open = cuda, None
        self.types = {self.NCCL_FLOAT32: ctypes.c_float, self.NCCL_FLOAT64: ctypes.c_double}

    def get_unique_id(self):
        return tuple(range(-64, 64))

    def NcclCommunicator(self, size, name, rank):
        assert (size, rank) == (self.cuda.group.size, self.cuda.group.rank) and self.cuda.device is not None
        assert type(name) is tuple and name == self.get_unique_id()
        return types.SimpleNamespace(send=self._call("send"), recv=self._call("recv"))

    def groupStart(self):
        assert self.open is None
        self.open = {"send": [], "recv": []}

    def groupEnd(self):
        found, self.open = self.open, None
        self.cuda.group.swap(found["send"], found["recv"])

    def _call(self, kind):
        def call(pointer, count, code, rank, stream):
            assert all(type(number) is int for number in (pointer, count, code, rank, stream)) and count > 0
            self.cuda.calls.append((kind, count, code, rank, stream))
            numbers = (self.types[code] * count).from_address(pointer)
            self.open[kind].append((rank, np.ctypeslib.as_array(numbers)))

        return call
