"""What a run was made with: versions, processors, system."""

import importlib.metadata
import platform

from .. import __version__
from ..backend import available_threads

_PACKAGES = ("numpy", "scipy", "pillow", "cupy-cuda12x", "cupy-cuda13x")


def environment() -> dict[str, str | int]:
    """{"numpyvit": version, "python": version, …}; packages that are not installed are left out."""
    versions = {"numpyvit": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**versions, "system": f"{platform.system()} {platform.machine()}", "processors": available_threads()}
