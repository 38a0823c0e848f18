"""The command line: `main`, and a file for each verb, a thin function over the library.

A verb's file defines add(verbs), which describes its options, and run(args). What run needs is imported when it is
called, so that `--help` comes at once.
"""

import argparse
import io
import sys
import warnings

from .. import __version__
from ..errors import ConfigError, NumpyvitError
from . import attention, convert, evaluate, gradcheck, models, predict, train


def main(argv=None):
    """Run one verb. Returns the exit code: 0, 1 for a failure, 2 for bad usage, 130 after Ctrl-C."""
    from ..train import Interrupted

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show is no failure
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            return args.run(args) or 0
    except Interrupted as stop:
        print(f"\nnumpyvit: {stop}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\nnumpyvit: stopped", file=sys.stderr)
        return 130
    except (NumpyvitError, MemoryError) as error:
        if args.debug:
            raise
        print(f"numpyvit: error: {error or type(error).__name__}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"numpyvit: note: {message}", file=sys.stderr)


def build_parser():
    parser = argparse.ArgumentParser(
        prog="numpyvit",
        description="Vision Transformers in pure NumPy: train, evaluate, look.",
        epilog="Begin with: numpyvit train",
    )
    parser.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in (train, evaluate, predict, attention, convert, models, gradcheck):
        verb.add(verbs).add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser
