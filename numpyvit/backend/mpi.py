"""Ranks that are processes, connected by MPI (extra [mpi]). Nothing else imports mpi4py."""

import itertools
import os
import sys
import time

import numpy as np

from ..errors import ConfigError
from .arrays import on_host
from .messages import pack, unpack
from .ranks import Group

_PATIENCE = 1.0  # seconds, for an error that all ranks meet to come to all of them
_INSTALL = "pip install 'numpyvit[mpi]', and an MPI library, for example: pip install mpich"


class MPIGroup(Group):
    """The processes that mpirun, mpiexec or srun started. An error that one of them does not catch ends all.

    Errors: ConfigError where mpi4py or an MPI library is missing.
    """

    def __init__(self):
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise ConfigError(f"several ranks need MPI, which cannot be loaded ({error}); {_INSTALL}") from None
        self._mpi, self._world = MPI, MPI.COMM_WORLD
        self._errors = self._world.Dup()  # for failed_together, while others wait on the world
        self._together = None
        sys.excepthook = self._end_all
        self.rank, self.size = self._world.rank, self._world.size
        own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        places = self.gather([MPI.Get_processor_name(), own])
        self.neighbours = places.count(places[self.rank])
        self.local = [name for name, _ in places[: self.rank]].count(places[self.rank][0])

    def gather(self, value):
        data = np.frombuffer(pack(value), np.uint8)
        sizes = np.empty(self.size, np.int64)
        _wait([self._world.Iallgather(np.array([data.size]), sizes)])
        edges = np.cumsum([0, *sizes])
        everything = np.empty(edges[-1], np.uint8)
        _wait([self._world.Iallgatherv(data, [everything, sizes, edges[:-1], self._mpi.BYTE])])
        return [unpack(everything[start:stop].tobytes()) for start, stop in itertools.pairwise(edges)]

    def swap(self, sends, receives):
        sends, receives = list(sends), list(receives)
        if any(not on_host(array) for _, array in sends + receives):
            raise ConfigError("the arrays of several ranks lie on GPUs; connect the ranks with --ranks nccl")
        arriving = [self._world.Irecv(array, rank) for rank, array in receives]
        leaving = [self._world.Isend(np.ascontiguousarray(array), rank) for rank, array in sends]
        if requests := arriving + leaving:
            _wait(requests)

    def barrier(self):
        _wait([self._world.Ibarrier()])

    def abort(self, code):
        time.sleep(_PATIENCE)  # until mpirun has passed on what was printed: it ends as well
        self._world.Abort(code)

    def failed_together(self):
        if self._together is None:
            all_here, end = self._errors.Ibarrier(), time.monotonic() + _PATIENCE
            while not (arrived := all_here.Test()) and time.monotonic() < end:
                time.sleep(0.01)
            self._together = arrived
        return self._together

    def _end_all(self, kind, error, traceback):
        """What becomes of an error that a program does not catch: others would wait for this rank for ever."""
        if self.failed_together():
            if self.leads:
                sys.__excepthook__(kind, error, traceback)
            return
        sys.__excepthook__(kind, error, traceback)
        print(f"numpyvit: error on rank {self.rank} of {self.size}, which ends all", file=sys.stderr, flush=True)
        self.abort(1)


def _wait(requests):
    """Wait for all of them. MPI's own wait keeps a processor busy, which other ranks and threads may need."""
    start = time.perf_counter()
    while not requests[0].Testall(requests):
        waited = time.perf_counter() - start
        if waited > 1e-4:
            time.sleep(min(max(5e-5, waited / 50), 0.01))
