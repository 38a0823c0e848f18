"""Vision Transformers in pure NumPy (or CuPy), every backward written by hand and proved against differences.

    import numpyvit as nv

    model = nv.create_model("vit_micro_patch7_28", seed=0)
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-3))
    loss = step(images, labels)

`data`, `io`, `testing`, `train` and `viz` are loaded on first use.
"""

import importlib

from . import errors, functional, layers, losses, models, optim
from .core import FORGET, Buffer, Layer, Parameter, Recompute, Tape
from .errors import NumpyvitError
from .inference import infer
from .kernels import kernels, plain
from .models import ModernVisionTransformer, SwinTransformer, VisionTransformer, create_model, list_models
from .step import TrainStep

__version__ = "0.1.0"

_LAZY = {
    "pretrained": None,
    "load_checkpoint": "io",
    "data": None,
    "io": None,
    "testing": None,
    "train": None,
    "viz": None,
    "fit": "train",
    "evaluate": "train",
}

__all__ = [
    "FORGET",
    "Buffer",
    "Layer",
    "ModernVisionTransformer",
    "NumpyvitError",
    "Parameter",
    "Recompute",
    "SwinTransformer",
    "Tape",
    "TrainStep",
    "VisionTransformer",
    "create_model",
    "errors",
    "functional",
    "infer",
    "kernels",
    "layers",
    "list_models",
    "losses",
    "models",
    "optim",
    "plain",
    *_LAZY,
]


def __dir__():
    return sorted([*globals(), *_LAZY])


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'numpyvit' has no attribute {name!r}")
    home = _LAZY[name]
    if home is None:
        return importlib.import_module(f"numpyvit.{name}")
    return getattr(importlib.import_module(f"numpyvit.{home}"), name)
