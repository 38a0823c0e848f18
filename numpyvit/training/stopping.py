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


@contextlib.contextmanager
def noticed_ctrl_c():
    """-> a Stop that Ctrl-C sets beside raising KeyboardInterrupt, which imports of compiled modules may swallow."""
    stop = Stop()
    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop
        return

    def notice(signum, frame):
        stop.signum = signum
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, notice)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
