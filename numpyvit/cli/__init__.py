"""The command line: `main`, and a file for each verb, a thin function over the library.

A verb's file defines add(verbs), which describes its options, and run(args). What run needs is imported when it is
called, so that `--help` comes at once.
"""

import argparse
import contextlib
import io
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..errors import Interrupted, NumpyvitError
from ..training.progress import Tolerant
from ..training.stopping import noticed_ctrl_c
from . import attention, compare, convert, data, evaluate, gradcheck, models, predict, ranks, report, serve, train
from .streams import discard, settle

_KERNELS = "of the formulas: NumPy's (default), or compiled ones, which need pip install 'numpyvit[fast]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, 1 for a failure, 2 for bad usage; after Ctrl-C 130, SIGTERM 143, and
    141 where nobody reads the output any more."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show is not a failure
    stdout, stderr = sys.stdout, sys.stderr
    try:
        with (
            contextlib.redirect_stderr(Tolerant(stderr)),  # lost text changes nothing
            noticed_ctrl_c() as stop,
            ranks.Silence() as silence,
        ):
            return _run_verb(argv, stop, silence)
    finally:
        settle(stdout)
        settle(stderr)


def _run_verb(argv, stop, silence):
    args = None
    try:
        args = build_parser().parse_args(argv)
        from ..backend.process import tune_process

        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd files, which it does not name
            warnings.showwarning = _show_warning
            tune_process()
            code = ranks.run(args, silence) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        discard(sys.stdout)
        return 141  # as of a program that SIGPIPE ended
    except Interrupted as error:
        print(f"\nnumpyvit: {error}", file=sys.stderr)
        return ranks.exit_code(error)
    except (KeyboardInterrupt, ImportError) as error:
        if isinstance(error, ImportError) and stop.signum is None:
            raise
        print("\nnumpyvit: stopped", file=sys.stderr)
        return 130
    except (NumpyvitError, MemoryError, OSError) as error:
        if args.debug:
            raise
        print(f"numpyvit: error: {error or type(error).__name__}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"numpyvit: note: {note}", file=sys.stderr)
        return ranks.exit_code(error)


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"numpyvit: note: {message}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="numpyvit",
        description="Vision Transformers in pure NumPy: train, evaluate, look.",
        epilog="Begin with: numpyvit train",
    )
    parser.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verb_files = (train, evaluate, predict, data, attention, serve, report, compare, convert, models, gradcheck)
    for verb in verb_files:
        option = verb.add(verbs).add_argument
        option("--kernels", choices=("numpy", "fast"), default="numpy", help=_KERNELS)
        option("--debug", action="store_true", help="show the traceback of a failure")
    return parser
