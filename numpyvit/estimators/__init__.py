"""Estimators by scikit-learn's conventions: ViTClassifier and ViTFeatures. They need the extra `numpyvit[sklearn]`."""

import importlib
import importlib.util

from ..errors import ConfigError

_HOMES = {"ViTClassifier": "classifier", "ViTFeatures": "features"}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError(
            f"{name} needs scikit-learn, which is not installed; install it with pip install 'numpyvit[sklearn]'"
        )
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
