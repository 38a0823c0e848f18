"""Files that are written whole or not at all."""

import contextlib
import json
import os
import pathlib
import tempfile

from .errors import ConfigError, RunError


def to_json(value, indent=None):
    """JSON text of settings; NumPy's numbers become Python's. Errors: ConfigError naming what cannot be written."""
    try:
        return json.dumps(value, indent=indent, default=_plain_number, allow_nan=False, sort_keys=indent is None)
    except ValueError as error:
        raise ConfigError(f"a setting is not finite and cannot be written: {error}") from None


def _plain_number(value):
    if hasattr(value, "item"):
        return value.item()
    raise ConfigError(f"a setting cannot be written to a file: {value!r}; give a number, text or a list")


def write_atomically(path, data):
    """Write bytes under `path`: into a temporary file beside it, to disk, then renamed over it in one step.

    A crash at any moment leaves the old file or the new one. Errors: RunError on a full or read-only disk, with
    the old file untouched.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; free space or choose another place") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
