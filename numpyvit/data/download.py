"""Fetching files: several mirrors, progress, a checksum, and nothing half-written."""

import hashlib
import http.client
import pathlib
import urllib.error
import urllib.request

from ..errors import DataError
from ..files import write_atomically

_BLOCK = 1 << 16
_TIMEOUT = 20  # seconds without a byte


def download(name, mirrors, md5, folder):
    """Fetch the file `name` from the first of `mirrors` (base addresses) that has it, into `folder`. Returns its path.

    The checksum is verified before the file appears. Errors: DataError with one line on what failed at each mirror.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; choose another with --data-dir") from None
    failures = []
    for mirror in mirrors:
        try:
            data = _fetch(mirror + name, name)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            failures.append(f"{mirror}: {getattr(error, 'reason', error)}")
            continue
        if hashlib.md5(data).hexdigest() == md5:
            write_atomically(folder / name, data)
            return folder / name
        failures.append(f"{mirror}: the checksum differs")
    raise DataError(f"{name} could not be fetched ({'; '.join(failures)})")


def _fetch(url, name):
    from tqdm import tqdm

    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
        length = response.headers.get("Content-Length")
        blocks = []
        with tqdm(total=int(length) if length else None, unit="B", unit_scale=True, desc=name, leave=False) as progress:
            while block := response.read(_BLOCK):
                blocks.append(block)
                progress.update(len(block))
    return b"".join(blocks)
