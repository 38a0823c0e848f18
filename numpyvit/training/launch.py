"""Whether this process is one of several that were started together, and how they are connected.

The command line asks before it imports NumPy.
"""

import os
from typing import Any

from ..errors import ConfigError

# what mpirun, mpiexec and srun tell the processes that they start; a batch script of Slurm is no step of it
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK")
WAYS = ("mpi", "nccl", "none")


def launched() -> tuple[int, int]:
    """(rank, size) of this process as its environment tells them; (0, 1) where nothing is told."""
    size = max(_number(name, 1) for name in _SIZES)
    ranks = _RANKS if "SLURM_STEP_NUM_TASKS" not in os.environ else (*_RANKS, "SLURM_PROCID")
    return (max(_number(name, 0) for name in ranks), size) if size > 1 else (0, 1)


def connect(ranks: str | None = None, device: str = "cpu") -> Any:
    """The group of this process, a backend.Group.

    ranks: "mpi" (CPUs), "nccl" (a GPU for each process) or "none"; None: as the environment tells, by MPI or, with
    device="cuda", by NCCL, and a process by itself where it tells nothing. mpi4py is imported where there are ranks.
    Errors: ConfigError where MPI is missing or does not find the other processes.
    """
    if ranks not in (None, *WAYS):
        raise ConfigError(f"ranks must be {', '.join(WAYS[:-1])} or {WAYS[-1]}, got {ranks!r}")
    _, size = launched()
    if ranks is None:
        ranks = "none" if size == 1 else "nccl" if device == "cuda" else "mpi"
    if ranks == "none":
        from ..backend import ALONE

        return ALONE
    if (ranks == "nccl") != (device == "cuda"):
        raise ConfigError(f"--ranks {ranks} does not go with --device {device}; nccl connects GPUs, mpi processors")
    from ..backend import mpi

    group = mpi.NCCLGroup() if ranks == "nccl" else mpi.MPIGroup()
    if group.size == 1 and size > 1:
        raise ConfigError(
            f"this is one of {size} processes that were started together, but MPI does not connect them; take the "
            "mpirun of the MPI library that mpi4py uses, for srun its --mpi option, or --ranks none"
        )
    return group


def _number(name, default):
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
