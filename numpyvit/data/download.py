"""Fetching files: several mirrors, https only, bounds on bytes and time, and what came is kept for the next try."""

import contextlib
import hashlib
import http.client
import os
import pathlib
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from ..errors import DataError
from .sources import Published

try:
    import fcntl
except ImportError:  # on Windows two processes that fetch one file are not kept apart
    fcntl = None

_BLOCK = 1 << 16
_SLOWEST = 1 << 10  # bytes a second


def download(
    file: Published,
    mirrors: Sequence[str],
    folder: pathlib.Path,
    *,
    opener: urllib.request.OpenerDirector | None = None,
    patience: float = 20.0,
) -> pathlib.Path:
    """Fetch a Published file from the first of `mirrors` (base addresses) that has it, into `folder`. Returns its path.

    What comes is written to `<name>.part`, where the next mirror or the next call goes on; the file appears when its
    checksum is right.
    opener: of urllib; default https_only(). patience: seconds without a byte, or with less than 1 KiB a second, after
    which a mirror is given up.
    Errors: DataError with one line on what failed at each mirror, or a folder that cannot be written.
    """
    folder, opener = pathlib.Path(folder), opener or https_only()
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _part(folder / f"{file.name}.part") as part:
            for mirror in mirrors:
                failure = _fetch(opener, mirror + file.name, file, part, patience)
                if failure is None:
                    os.fsync(part.fileno())
                    os.replace(part.name, folder / file.name)
                    return folder / file.name
                failures.append(f"{mirror}: {' '.join(failure.split())[:200]}")
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}; choose another with --data-dir") from None
    raise DataError(f"{file.name} could not be fetched ({'; '.join(failures)})")


@contextlib.contextmanager
def _part(path):
    """The file that a download goes into, kept as long as it holds anything; open in one process at a time."""
    with open(path, "ab+", buffering=0) as part:
        if fcntl is not None:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{path}: another process is fetching this file; wait for it") from None
        try:
            yield part
        finally:
            if os.fstat(part.fileno()).st_size == 0:
                os.unlink(path)


def _fetch(opener, url, file, part, patience):
    """Fill `part` from one address. Returns what went wrong, or None once the file is whole and right."""
    kept = part.seek(0, os.SEEK_END)
    failure = _receive(opener, url, file, part, patience)
    if failure is None and not _is_right(part, file):
        part.truncate(0)
        failure = "the checksum differs"
    if failure is not None and kept and part.seek(0, os.SEEK_END) == 0:  # what was kept was not the file's beginning
        return _fetch(opener, url, file, part, patience)
    return failure


def _is_right(part, file):
    part.seek(0)
    return hashlib.file_digest(part, "md5").hexdigest() == file.md5


def _receive(opener, url, file, part, patience):
    """Append to `part` what it lacks. Returns what went wrong, or None; `part` is emptied where it cannot be used."""
    kept = part.seek(0, os.SEEK_END)
    if kept == file.size:
        return None
    request = urllib.request.Request(url, headers={"Range": f"bytes={kept}-"} if kept else {})
    try:
        with opener.open(request, timeout=patience) as response:
            if kept and not response.headers.get("Content-Range", "").startswith(f"bytes {kept}-"):
                part.truncate(0)  # the server sends the file from its beginning
            return _copy(response, part, file, patience)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.truncate(0)
        return f"{error.code} {error.reason}"
    except DataError:  # the disk's, see _append
        raise
    except (http.client.HTTPException, OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _copy(response, part, file, patience):
    from tqdm import tqdm

    came = part.seek(0, os.SEEK_END)
    watched, watched_since = came, time.monotonic()
    with tqdm(
        total=file.size, initial=came, unit="B", unit_scale=True, desc=file.name, leave=False, disable=None
    ) as progress:
        while block := response.read1(_BLOCK):
            came += len(block)
            if came > file.size:
                part.truncate(0)
                return f"sends more than the {file.size:,} bytes that were published"
            _append(part, block)
            progress.update(len(block))
            seconds = time.monotonic() - watched_since
            if seconds > patience:
                if came - watched < _SLOWEST * seconds:
                    return f"sends less than {_SLOWEST:,} bytes a second"
                watched, watched_since = came, time.monotonic()
    if came < file.size:
        return f"ends after {came:,} of {file.size:,} bytes"
    return None


def _append(part, block):
    try:
        rest = memoryview(block)
        while rest:
            rest = rest[part.write(rest) :]
    except OSError as error:
        raise DataError(f"cannot write {part.name}: {error.strerror}; free space or choose another folder") from None


# ---- https only -----------------------------------------------------------------------------------------------------


class _RefuseOthers(urllib.request.BaseHandler):
    def unknown_open(self, request):
        raise urllib.error.URLError(f"only https is used, not {request.type} ({request.full_url})")


def https_only(transport: urllib.request.BaseHandler | None = None) -> urllib.request.OpenerDirector:
    """An opener of urllib that knows https and nothing else, wherever an address comes from: a mirror or a redirect.

    transport: what sends https requests; default urllib's HTTPSHandler, which checks the server's certificate.
    """
    opener = urllib.request.OpenerDirector()
    proxies = {kind: proxy for kind, proxy in urllib.request.getproxies().items() if kind == "https"}
    for handler in (
        transport or urllib.request.HTTPSHandler(),
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        _RefuseOthers(),
    ):
        opener.add_handler(handler)
    return opener
