"""One process at a time in a run directory."""

import contextlib
import os
import pathlib
import socket
import warnings
from collections.abc import Iterator

from ..errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def hold(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder against other runs while open. The lock dies with the process, however that ends.

    Errors: RunError that names the process which holds it.
    """
    if fcntl is None:
        yield
        return
    path = pathlib.Path(folder) / ".lock"
    lock = _acquire(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(lock)


def _acquire(path):
    """-> a descriptor of the lock file, locked."""
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(f"cannot use the folder {path.parent}: {error.strerror}; choose another --out") from None
        try:
            _lock(lock, path)
            if _lies_at(path, lock):
                os.ftruncate(lock, 0)
                os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # who held it before has removed it: this file is nobody's any more


def _lock(lock, path):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 200).decode(errors="replace") or "another process"
        raise RunError(
            f"{path.parent}: {holder} is writing this run; wait for it, stop it or choose another --out"
        ) from None
    except OSError as error:
        warnings.warn(f"{path} cannot be locked ({error.strerror}); start no second run there", stacklevel=5)


def _lies_at(path, lock):
    try:
        return os.path.samestat(os.stat(path), os.fstat(lock))
    except FileNotFoundError:
        return False
