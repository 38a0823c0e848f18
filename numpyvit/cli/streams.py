"""What becomes of text that nobody can read: the other end of a pipe is gone, a disk is full, a stream is closed."""

import contextlib
import os
import sys
from typing import TextIO

from ..training.progress import Tolerant


@contextlib.contextmanager
def tolerant_stdout():
    """While open, what cannot be printed is lost and nothing else: a run is worth more than what it says."""
    stream = sys.stdout
    with contextlib.redirect_stdout(Tolerant(stream)):
        yield
    settle(stream)


def settle(stream: TextIO | None) -> None:
    """Write out what waits in a stream. Where that fails forget it: the interpreter would fail on it once more."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        discard(stream)


def discard(stream: TextIO | None) -> None:
    """Let what waits in a stream, and all that comes, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
