"""A verb that several ranks run together: one of them talks, and the error of one ends all."""

import contextlib
import io
import signal
import sys
import traceback
from argparse import ArgumentParser, Namespace

from ..errors import ConfigError, Interrupted, NumpyvitError
from ..training.launch import WAYS, checked, launched, start, way


def add_ranks(verb: ArgumentParser) -> None:
    verb.add_argument(
        "--ranks",
        choices=WAYS,
        help="how processes that mpirun, mpiexec or srun started share the work: mpi, on GPUs nccl, or none "
        "(default: noticed by their environment)",
    )


class Silence:
    """While open, what this process prints is lost, unless it is the first of several that were started together."""

    def __init__(self):
        self.stderr, self._stack = sys.stderr, contextlib.ExitStack()

    def __enter__(self):
        self.keep(launched()[0])
        return self

    def __exit__(self, *error):
        self._stack.close()

    def keep(self, rank):
        """Keep it as this rank must: all but the first are silent."""
        self._stack.close()
        if rank > 0:
            self._stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            self._stack.enter_context(contextlib.redirect_stderr(io.StringIO()))


def run(args: Namespace, silence: Silence) -> int | None:
    """Run the verb, with the group of its ranks as args.group. An error that this rank alone has met ends them all."""
    from .. import kernels

    if not hasattr(args, "ranks"):
        with kernels.choose(args.kernels):
            return args.run(args)
    group = _started(way(args.ranks, args.device), silence)
    silence.keep(group.rank)
    try:
        with kernels.choose(args.kernels):
            args.group = checked(group, args.device)
            return args.run(args)
    except BaseException as error:
        if group.failed_together():
            raise
        _report(error, args, group, silence.stderr)
        group.abort(exit_code(error))


def _started(chosen, silence):
    """The group. Where MPI fails nobody knows whether other ranks met it too, which would wait for this one."""
    try:
        return start(chosen)
    except NumpyvitError as error:
        rank, size = launched()
        if size == 1:
            raise
        print(f"numpyvit: error on rank {rank} of {size}, which ends all: {error}", file=silence.stderr, flush=True)
        signal.raise_signal(signal.SIGTERM)  # mpirun may pass over an exit code of a process that MPI does not know
        raise


def exit_code(error: BaseException) -> int:
    """By which shells know how it ended: 2 is bad usage."""
    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, ConfigError) else 1


def _report(error, args, group, stream):
    who = f"rank {group.rank} of {group.size}"
    if args.debug or not isinstance(error, (NumpyvitError, MemoryError, OSError, KeyboardInterrupt)):
        traceback.print_exception(error, file=stream)
    print(f"numpyvit: error on {who}, which ends all: {error or type(error).__name__}", file=stream)
    for note in getattr(error, "__notes__", ()):
        print(f"numpyvit: note: {note}", file=stream, flush=True)
