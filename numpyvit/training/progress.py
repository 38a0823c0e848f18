"""What a run says while it trains. None of it is worth the run: where a stream fails the text is lost, nothing else."""

import contextlib
import sys
from typing import TextIO


class Tolerant:
    """A text stream whose failures, such as a full disk, a closed file or a pipe that ended, are passed over."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream  # None where the process began without it

    def write(self, text):
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.write(text)

    def flush(self):
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self):
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def __getattr__(self, name):
        return getattr(self._stream, name)


class Progress:
    """A bar on stderr where that is a terminal, and a line an epoch on stdout. shown=False: neither."""

    def __init__(self, shown: bool, total: int, done: int):
        from tqdm import tqdm

        stderr = Tolerant(sys.stderr)
        self.shown, self.has_bar = shown, shown and stderr.isatty()
        self._bar = tqdm(
            total=total, initial=done, unit="step", smoothing=0.1, dynamic_ncols=True, file=stderr,
            disable=not self.has_bar,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._bar.close()

    def step(self):
        self._bar.update()

    def explain(self, title, text):
        """What stands before and behind the bar."""
        self._bar.set_description(title, refresh=False)
        self._bar.set_postfix_str(text, refresh=False)

    def line(self, text):
        if self.shown:
            self._bar.clear()
            print(text, file=Tolerant(sys.stdout), flush=True)
            self._bar.refresh()
