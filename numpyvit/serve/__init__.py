"""A model behind HTTP, with a page to look inside it: `numpyvit serve`. It needs the extra `numpyvit[serve]`."""

import importlib
import importlib.util

from ..errors import ConfigError

_HOMES = {"Limits": "limits", "Served": "served", "create_app": "app", "serve": "server"}
_NEEDED = ("starlette", "uvicorn", "python_multipart")


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    missing = [package for package in _NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"serving needs {', '.join(missing)}, not installed here; install with pip install 'numpyvit[serve]'"
        )
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
