"""Settings of the whole process."""

import contextlib
import functools
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


@functools.cache
def tune_process() -> None:
    """Tell glibc to keep freed memory for the next arrays instead of returning it to the system, once a process.

    Fresh pages cost a fault each 4 KiB: a training step on small images takes a quarter longer without this. It changes
    the whole process for good and cannot be taken back, so it is for programs that own theirs; the command line and the
    benchmarks call it, the library never does. It does nothing where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_ARENA_MAX, 1)  # or each thread's own heap would still be returned
