"""Estimators by scikit-learn's conventions; they need the extra `numpyvit[sklearn]`."""

import importlib.util

from ..errors import ConfigError

if importlib.util.find_spec("sklearn") is None:
    raise ConfigError("the estimators need scikit-learn, which is not installed; install it with: "
                      "pip install 'numpyvit[sklearn]'")  # fmt: skip

from .classifier import ViTClassifier
from .features import ViTFeatures

__all__ = ["ViTClassifier", "ViTFeatures"]
