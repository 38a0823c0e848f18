"""A running server: the socket, the process, and newer weights while it runs."""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn

from ..errors import ConfigError, NumpyvitError
from .app import LOCAL, create_app
from .limits import Limits
from .served import Served

_LOOK_EVERY = 1.0  # seconds between two looks at a file of weights
_LAST_SECONDS = 5  # for requests on their way when the server is stopped


def serve(
    load: Callable[[], Served],
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    watch: str | os.PathLike | None = None,
    started: Callable[[str], None] = print,
) -> None:
    """Serve what load() returns until Ctrl-C or SIGTERM. port 0: any that is free.

    watch: a file; load() is called again whenever it has changed. started: called with the address.
    Bound to this machine's own names it answers to these alone.
    Errors: ConfigError where host or port cannot be had.
    """
    seen = stamp(watch)
    served = load()
    with contextlib.closing(_bound(host, port)) as listener:
        hosts = LOCAL if listener.getsockname()[0] in ("127.0.0.1", "::1") else ("*",)
        app = create_app(served, limits, hosts, watched=watch is not None)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listener.getsockname()[1]}")
        with following(watch, seen, load, app.state.service.replace):
            uvicorn.Server(config).run(sockets=[listener])


def _bound(host, port):
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"cannot listen on {host}, port {port}: {error}; choose another --host or --port") from None


@contextlib.contextmanager
def following(
    path: str | os.PathLike | None,
    seen: tuple | None,
    load: Callable[[], Served],
    replace: Callable[[Served], None],
    seconds: float = _LOOK_EVERY,
) -> Iterator[None]:
    """While open, replace(load()) whenever the file's stamp is no longer `seen`; without a path nothing."""
    if path is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(path, seen, load, replace, seconds, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(path, seen, load, replace, seconds, ended):
    while not ended.wait(seconds):
        found = stamp(path)
        if found in (seen, None):
            continue
        seen = found
        try:
            replace(load())
        except (NumpyvitError, OSError) as error:
            print(f"numpyvit: note: the weights before are kept: {error}", file=sys.stderr)


def stamp(path: str | os.PathLike | None) -> tuple | None:
    """What changes when a file is written again; None where there is none, or no path."""
    with contextlib.suppress(OSError, TypeError):
        status = os.stat(path)
        return status.st_ino, status.st_mtime_ns, status.st_size
