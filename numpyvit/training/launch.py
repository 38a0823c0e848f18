"""Whether this process is one of several that were started together, and how they are connected.

The command line asks before it imports NumPy.
"""

import os
from typing import Any

from ..errors import ConfigError

# (number of processes, own number) as mpirun, mpiexec and srun tell the processes that they start. The first that is
# found holds: mpirun may itself have been started by srun. A batch script of Slurm is no step of it.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)
WAYS = ("mpi", "nccl", "none")
_ADVICE = (
    "ranks that do not compute alike end with different weights: install the same versions for all, and on different "
    "kinds of processors set OPENBLAS_CORETYPE to one that all have"
)


def launched() -> tuple[int, int]:
    """(rank, size) of this process as its environment tells them; (0, 1) where nothing is told."""
    for names in _LAUNCHERS:
        size, rank = (os.environ.get(name, "") for name in names)
        if size.isdecimal() and rank.isdecimal():
            return int(rank), int(size)
    return 0, 1


def connect(ranks: str | None = None, device: str = "cpu") -> Any:
    """The group of this process, a backend.Group.

    ranks: "mpi" (CPUs), "nccl" (a GPU for each process) or "none"; None: as the environment tells, by MPI or, with
    device="cuda", by NCCL, and a process by itself where it tells nothing. mpi4py is imported where there are ranks.
    Errors: ConfigError where MPI is missing or does not find the other processes, and where the ranks have different
    versions of what they compute with.
    """
    return checked(start(way(ranks, device)), device)


def way(ranks: str | None, device: str) -> str:
    """Which of WAYS processes take. Errors: ConfigError where it does not go with the device."""
    if ranks not in (None, *WAYS):
        raise ConfigError(f"ranks must be {', '.join(WAYS[:-1])} or {WAYS[-1]}, got {ranks!r}")
    if ranks is None:
        return "none" if launched()[1] == 1 else "nccl" if device == "cuda" else "mpi"
    if ranks != "none" and (ranks == "nccl") != (device == "cuda"):
        raise ConfigError(f"--ranks {ranks} does not go with --device {device}; nccl connects GPUs, mpi processors")
    return ranks


def start(way: str) -> Any:
    """The group of this process by its way, before ranks have looked at each other."""
    from ..backend import ALONE

    if way == "none":
        return ALONE
    from ..backend.mpi import MPIGroup

    group, (_, size) = MPIGroup(), launched()
    if group.size == 1 and size > 1:
        raise ConfigError(
            f"this is one of {size} processes that were started together, but MPI does not connect them; take the "
            "mpirun of the MPI library that mpi4py uses, for srun its --mpi option, or --ranks none"
        )
    return group


def checked(group: Any, device: str = "cpu") -> Any:
    """A group of `start` whose ranks compute alike; with device="cuda" their GPUs are connected too."""
    from ..backend import ALONE, check_alike

    if group is ALONE:
        return group
    from .environment import arithmetic

    check_alike(group, arithmetic(), _ADVICE)
    if device != "cuda":
        return group
    from ..backend.arrays import cuda_with_nccl
    from ..backend.nccl import NCCLGroup

    return NCCLGroup(group, cuda_with_nccl())
