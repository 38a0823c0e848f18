"""A verb that several ranks run together: one of them talks, and the error of one ends all."""

import contextlib
import io
import sys
import traceback
from argparse import ArgumentParser, Namespace

from ..errors import Interrupted, NumpyvitError
from ..training.launch import WAYS, connect, launched


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
        if launched()[0] > 0:
            self._stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            self._stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        return self

    def __exit__(self, *error):
        self.end()

    def end(self):
        self._stack.close()


def run(args: Namespace, silence: Silence) -> int | None:
    """Run the verb, with the group of its ranks as args.group. An error that this rank alone has met ends them all."""
    if not hasattr(args, "ranks"):
        return args.run(args)
    if args.ranks == "none":
        silence.end()
    args.group = connect(args.ranks, args.device)
    try:
        return args.run(args)
    except BaseException as error:
        if args.group.failed_together():
            raise
        _report(error, args, silence.stderr)
        args.group.abort(error.exit_code if isinstance(error, Interrupted) else 1)


def _report(error, args, stream):
    who = f"rank {args.group.rank} of {args.group.size}"
    if args.debug or not isinstance(error, (NumpyvitError, MemoryError, OSError, KeyboardInterrupt)):
        traceback.print_exception(error, file=stream)
    print(f"numpyvit: error on {who}, which ends all: {error or type(error).__name__}", file=stream)
    for note in getattr(error, "__notes__", ()):
        print(f"numpyvit: note: {note}", file=stream, flush=True)
