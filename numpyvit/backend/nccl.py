"""Ranks with a GPU each, connected by NCCL through CuPy."""

import platform
import types

from ..errors import ConfigError
from .ranks import Group


class NCCLGroup(Group):
    """Ranks with a GPU each: arrays go from GPU to GPU by NCCL, everything else as in the group below.

    group: the same ranks, such as an MPIGroup. cuda: arrays.cuda_with_nccl(), or a stand-in for it.
    Each rank takes the GPU of its number among the ranks of its machine.
    Errors: ConfigError where two ranks would share a GPU, which NCCL does not do, or where it connects nothing.
    """

    def __init__(self, group: Group, cuda: types.ModuleType):
        self._group, self._cuda = group, cuda
        self.rank, self.size, self.neighbours, self.local = group.rank, group.size, group.neighbours, group.local
        device = cuda.Device(self.local % cuda.runtime.getDeviceCount())
        device.use()
        self._check_own_gpu(f"{cuda.runtime.deviceGetPCIBusId(device.id)} of {platform.node()}")
        name = self.from_first(list(cuda.nccl.get_unique_id()) if self.leads else None)
        try:
            self._gpus = cuda.nccl.NcclCommunicator(self.size, tuple(name), self.rank)
        except RuntimeError as error:
            raise ConfigError(
                f"NCCL does not connect the GPUs of the ranks ({error}); NCCL_DEBUG=INFO in the environment shows why"
            ) from None

    def _check_own_gpu(self, gpu):
        gpus = self.gather(gpu)
        for rank, other in enumerate(gpus):
            if gpus.index(other) != rank:
                raise ConfigError(
                    f"ranks {gpus.index(other)} and {rank} would share the GPU {other}, NCCL needs one for each; start "
                    "no more ranks on a machine than it has GPUs"
                )

    def threads(self, threads=None):
        """One: a GPU is chosen by a thread for itself, others would work on the first GPU."""
        return 1

    def gather(self, value):
        return self._group.gather(value)

    def barrier(self):
        self._group.barrier()

    def abort(self, code):
        self._group.abort(code)

    def failed_together(self):
        return self._group.failed_together()

    def swap(self, sends, receives):
        nccl, stream = self._cuda.nccl, self._cuda.get_current_stream().ptr
        codes = {"f": nccl.NCCL_FLOAT32, "d": nccl.NCCL_FLOAT64}
        calls = [(self._gpus.send, *sent) for sent in sends] + [(self._gpus.recv, *received) for received in receives]
        nccl.groupStart()
        for call, rank, array in calls:
            if array.size:  # others leave out what is empty too
                call(array.data.ptr, array.size, codes[array.dtype.char], rank, stream)
        nccl.groupEnd()
