"""What `numpyvit train` does where nothing else is said: a model, a length and the augmentation for each data set.

The rate stays constant and a moving average of the weights is what counts, so a run has no planned end: training 3
epochs and then 2 more is the same as training 5. So what follows from the size of a folder is counted in epochs, not
in shares of the run.
"""

import math

from ..data import SOURCES, random_affine, random_crop, random_flip
from ..errors import ConfigError
from .settings import default_warmup

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


# for weights that are trained already: the head learns at the full rate, lower blocks slower and slower (BEiT's way)
_FINE_TUNING = {"lr": 1e-3, "layer_decay": 0.75}


def recipe(data, images=None, pretrained=False, batch_size=None):
    """The settings for a data set by name, or for a folder of so many images to train on.

    pretrained: for weights that are trained already. batch_size: the user's, from which a folder's warm-up follows.
    """
    settings = {**_COMMON, **(_BY_DATA[data] if data in _BY_DATA else _for_folder(images, batch_size))}
    return {**settings, **_FINE_TUNING} if pretrained else settings


def _for_folder(images, batch_size):
    """The photographs' settings for a folder: enough updates an epoch, a warm-up and an average that fit into one."""
    if batch_size is None:
        batch_size = min(128, max(8, 2 ** int(math.log2(images / 10))))
    batches = -(-images // batch_size)
    return {
        **_PHOTOS,
        "batch_size": batch_size,
        "warmup_steps": default_warmup(_COMMON["warmup_steps"], batches),
        "ema_decay": min(_COMMON["ema_decay"], 1 - 1 / batches),
    }


def default_model(data):
    """The preset that suits a data set."""
    return _BY_DATA.get(data, _PHOTOS)["model"]


def augmentation(spec):
    """{"affine": {"degrees": 10}, "crop": 4, "flip": 0.5} -> the functions, in that order."""
    unknown = [name for name in spec if name not in _AUGMENTATIONS]
    if unknown:
        raise ConfigError(f"unknown augmentation {unknown[0]!r}; there are {', '.join(_AUGMENTATIONS)}")
    return [_AUGMENTATIONS[name](options) for name, options in spec.items()]


def is_folder(data):
    return data != "digits" and data not in SOURCES
