"""How a run is asked to stop."""

import contextlib
import signal
import threading


class Stop:
    """The signal that asked for a stop, None before; looked at between two steps, so that none is cut in half."""

    signum = None

    def ask(self, signum, frame):
        if self.signum is not None and signum == signal.SIGINT:  # a second Ctrl-C stops at once
            raise KeyboardInterrupt
        self.signum = signum


@contextlib.contextmanager
def catch_signals():
    """-> a Stop that Ctrl-C and SIGTERM set, on the main thread; on others signals do not arrive."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signum: signal.signal(signum, stop.ask) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
