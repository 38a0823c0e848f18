"""What a run was made with: versions, processors, system; and which of it the last digits follow from."""

import contextlib
import importlib.metadata
import platform

from .. import __version__, kernels
from ..backend import available_threads, blas_name

_PACKAGES = ("numpy", "scipy", "pillow", "cupy-cuda12x", "cupy-cuda13x")


def environment() -> dict[str, str | int]:
    """{"numpyvit": version, "python": version, …}; packages that are not installed are left out."""
    versions = {"numpyvit": __version__, "python": platform.python_version(), **_versions(_PACKAGES)}
    return {**versions, "system": f"{platform.system()} {platform.machine()}", "processors": available_threads()}


def arithmetic() -> dict[str, str]:
    """What results follow from to the last digit: versions, BLAS, the chosen kernels."""
    compiled = ("numba",) if kernels.chosen() == "fast" else ()
    versions = {"numpyvit": __version__, **_versions(_PACKAGES + compiled)}
    return {**versions, "BLAS": blas_name(), "kernels": kernels.chosen()}


def _versions(packages):
    """{package: version} of those that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
