"""Files and folders of other people: what stands in the way of reading them is a DataError that names the path."""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import DataError


def shown(path: str | os.PathLike) -> str:
    """A path for a message of one line: what is no printable character, such as a newline, is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """An OSError in the block becomes a DataError about `path`, in one line."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{shown(path)}: there is no such file or folder") from None
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read ({error.strerror or error})") from None


def open_file(path: str | os.PathLike) -> BinaryIO:
    """A file opened for reading bytes. Errors: DataError for a missing or unreadable file, a folder, pipe or device.

    Opening a pipe would wait until somebody writes into it, so what lies there is looked at first.
    """
    with naming(path):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise DataError(
                f"{shown(path)}: is a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}, expected a file"
            )
        return open(path, "rb")


def is_file(path: str | os.PathLike) -> bool:
    """Whether a regular file lies there. Errors: DataError where the folder's permissions hide it."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: str | os.PathLike) -> bool:
    """Whether a folder lies there. Errors: DataError where the permissions of the folder above hide it."""
    return stat.S_ISDIR(_mode(path))


def _mode(path):
    try:
        return os.stat(path).st_mode
    except PermissionError as error:
        raise DataError(f"{shown(path)}: cannot be read ({error.strerror})") from None
    except (OSError, ValueError):  # nothing lies there, or nothing can: a name too long, a link to itself
        return 0


def listing(folder: str | os.PathLike) -> list[os.DirEntry]:
    """What lies in a folder, as os.DirEntry by name; hidden files and folders are left out.

    Errors: DataError where it cannot be listed.
    """
    with naming(folder), os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
