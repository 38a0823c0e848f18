"""Vision Transformers in pure NumPy (or CuPy), every backward written by hand and proved against differences.

    import numpyvit as nv

    model = nv.create_model("vit_micro_patch7_28", seed=0)
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-3))
    loss = step(images, labels)

Everything is loaded on first use, so that the command line answers at once, Ctrl-C included.
"""

import importlib

__version__ = "0.1.0"

# public name: the module it is from, None for a module itself
_HOMES = {
    "DETR": "models",
    "FORGET": "core",
    "Buffer": "core",
    "Layer": "core",
    "ModernVisionTransformer": "models",
    "NumpyvitError": "errors",
    "Parameter": "core",
    "Predictor": "training.predictor",
    "Recompute": "core",
    "SwinTransformer": "models",
    "Tape": "core",
    "TrainStep": "training.step",
    "ViTClassifier": "estimators",
    "ViTFeatures": "estimators",
    "VisionTransformer": "models",
    "backend": None,
    "core": None,
    "create_model": "models",
    "data": None,
    "errors": None,
    "evaluate": "training.evaluation",
    "export_onnx": "onnx",
    "fit": "training.fit",
    "functional": None,
    "infer": "training.inference",
    "kernels": None,
    "layers": None,
    "list_models": "models",
    "load_checkpoint": "weights",
    "losses": None,
    "metrics": None,
    "models": None,
    "optim": None,
    "plain": "kernels",
    "report": None,
    "summary": "models",
    "testing": None,
    "training": None,
    "tune_process": "backend",
    "viz": None,
    "weights": None,
}

__all__ = [name for name, home in _HOMES.items() if home != "estimators"]  # those need scikit-learn


def __dir__():
    return sorted([*globals(), *_HOMES])


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'numpyvit' has no attribute {name!r}")
    home = _HOMES[name]
    if home is None:
        return importlib.import_module(f"numpyvit.{name}")
    return getattr(importlib.import_module(f"numpyvit.{home}"), name)
