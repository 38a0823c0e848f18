"""What `numpyvit train` does where nothing else is said: a model, a length and the augmentation for each data set.

The rate stays constant and a moving average of the weights is what counts, so a run has no planned end: training 3
epochs and then 2 more is the same as training 5.
"""

from .data import SOURCES, random_affine, random_crop, random_flip
from .errors import ConfigError

_AUGMENTATIONS = {"affine": lambda o: random_affine(**o), "crop": random_crop, "flip": random_flip}

_COMMON = {
    "steps": None,
    "batch_size": 128,
    "lr": 2e-3,
    "weight_decay": 0.05,
    "schedule": "constant",
    "warmup_steps": 200,
    "label_smoothing": 0.0,
    "clip_norm": 1.0,
    "ema_decay": 0.998,
    "seed": 0,
    "freeze": [],
    "layer_decay": None,
}
_DIGITS = {
    "model": "vit_micro_patch2_8",
    "epochs": 30,
    "batch_size": 64,
    "warmup_steps": 100,
    "ema_decay": 0.99,
    "augment": {"affine": {"degrees": 10, "shift": 0.5}},
}
_MNIST = {
    "model": "vit_micro_patch4_28",
    "epochs": 5,
    "batch_size": 64,
    "lr": 3e-3,
    "ema_decay": 0.999,
    "augment": {"affine": {"degrees": 8, "shift": 1, "scale": 0.1}},
}
_PHOTOS = {
    "model": "vit_micro_patch4_32",
    "epochs": 20,
    "lr": 1e-3,
    "augment": {"crop": 4, "flip": 0.5},
}

_BY_DATA = {
    "digits": _DIGITS,
    "mnist": _MNIST,
    "fashion-mnist": {**_MNIST, "epochs": 10, "augment": {"crop": 2, "flip": 0.5}},
    "cifar10": _PHOTOS,
    "cifar100": _PHOTOS,
}


def recipe(data):
    """The settings for a data set by name; a folder of pictures gets those of the photographs."""
    return {**_COMMON, **_BY_DATA.get(data, _PHOTOS)}


def augmentation(spec):
    """{"affine": {"degrees": 10}, "crop": 4, "flip": 0.5} -> the functions, in that order."""
    unknown = [name for name in spec if name not in _AUGMENTATIONS]
    if unknown:
        raise ConfigError(f"unknown augmentation {unknown[0]!r}; there are {', '.join(_AUGMENTATIONS)}")
    return [_AUGMENTATIONS[name](options) for name, options in spec.items()]


def is_folder(data):
    return data != "digits" and data not in SOURCES
