"""Files that are written whole or not at all."""

import contextlib
import json
import os
import pathlib
import secrets

from ..errors import ConfigError, RunError


def to_json(value: object, indent: int | None = None) -> str:
    """JSON text of settings; NumPy's numbers become Python's. Errors: ConfigError naming what cannot be written."""
    try:
        return json.dumps(value, indent=indent, default=_plain_number, allow_nan=False, sort_keys=indent is None)
    except ValueError as error:
        raise ConfigError(f"a setting is not finite and cannot be written: {error}") from None


def _plain_number(value):
    if hasattr(value, "item"):
        return value.item()
    raise ConfigError(f"a setting cannot be written to a file: {value!r}; give a number, text or a list")


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write bytes under `path`: into a new file beside it, to disk, then renamed over it in one step.

    A crash at any moment leaves the old file or the new one. Errors: RunError on a full or read-only disk, with
    the old file untouched.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with open(part, "xb") as file:  # unlike those of tempfile, with the rights that any new file has
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; free space or choose another place") from None
    _sync_folder(path.parent)


def _sync_folder(folder):
    """Bring a rename to disk. Where a folder cannot be synced a power cut may bring back the old file, whole."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
