"""The settings where nothing else is said: a model, a length and the augmentation for each data set.

The rate stays constant and a moving average of the weights is what counts, so a run has no planned end: training 3
epochs and then 2 more is the same as training 5. So what follows from the number of images is counted in epochs, not
in shares of the run.
"""

import math
from dataclasses import replace

from .settings import Settings

PHOTOS = replace(Settings(), augment={"crop": 4, "flip": 0.5})
MNIST = replace(
    Settings(),
    epochs=5,
    batch_size=64,
    lr=3e-3,
    ema_decay=0.999,
    augment={"affine": {"degrees": 8, "shift": 1, "scale": 0.1}},
)
BOXES = replace(
    Settings(),
    epochs=60,
    batch_size=16,
    lr=5e-4,
    weight_decay=1e-4,
    clip_norm=0.1,
    ema_decay=0.998,
    augment={"box_flip": {"horizontal": 0.5}, "box_scale": [0.8, 1.25]},
)
RECIPES = {
    "digits": replace(
        Settings(),
        epochs=30,
        batch_size=64,
        lr=2e-3,
        warmup_steps=100,
        ema_decay=0.99,
        augment={"affine": {"degrees": 10, "shift": 0.5}},
    ),
    "mnist": MNIST,
    "fashion-mnist": replace(MNIST, epochs=10, augment={"crop": 2, "flip": 0.5}),
    "cifar10": PHOTOS,
    "cifar100": PHOTOS,
    "shapes": replace(BOXES, epochs=52, lr=1e-3, augment={"box_flip": {"horizontal": 0.5, "vertical": 0.5}}),
}
BY_KIND = {
    "classification": PHOTOS,
    "detection": BOXES,
}  # for sets of other names, by their `kind`; Settings() for a kind not named here
_MODELS = {
    "digits": "vit_micro_patch2_8",
    "mnist": "vit_micro_patch4_28",
    "fashion-mnist": "vit_micro_patch4_28",
    "shapes": "detr_micro_64",
}
_MODELS_BY_KIND = {"classification": "vit_micro_patch4_32", "detection": "detr_mini_160"}

_UPDATES_FOR_BOXES = 2800  # of a detector at least: a few hundred images are seen more often

# for weights that are trained already: the head learns at the full rate, lower blocks slower and slower (BEiT's way)
_FINE_TUNING = {"lr": 1e-3, "layer_decay": 0.75}


def recipe(
    data: str | None,
    images: int | None = None,
    pretrained: bool = False,
    batch_size: int | None = None,
    kind: str = "classification",
) -> Settings:
    """The settings for a data set by name, for a folder, or for arrays (None), with a number of images to train on.

    pretrained: for weights that are trained already. batch_size: the user's, from which the warm-up follows where the
    set is not known by name. kind: what is to be learned, where the set is not known by name. Arrays are not augmented:
    a mirrored image may be of another class.
    """
    settings = RECIPES[data] if data in RECIPES else _by_size(images, batch_size, BY_KIND.get(kind, Settings()))
    if kind == "detection" and data not in RECIPES:
        settings = replace(settings, epochs=max(settings.epochs, _UPDATES_FOR_BOXES * settings.batch_size // images))
    if data is None:
        settings = replace(settings, augment={})
    return replace(settings, **_FINE_TUNING) if pretrained else settings


def _by_size(images, batch_size=None, most=PHOTOS):
    """Settings for a number of images: enough updates an epoch, warm-up and average within it, `most` at most."""
    if batch_size is None:
        batch_size = min(most.batch_size, max(8, 2 ** int(math.log2(images / 10))))
    batches = -(-images // batch_size)
    return replace(
        most,
        batch_size=batch_size,
        warmup_steps=min(most.warmup_steps, batches // 2),
        ema_decay=min(most.ema_decay, 1 - 1 / batches),
    )


def default_model(data: str) -> str:
    """The preset that suits a data set or a folder."""
    from ..data import has_boxes

    return _MODELS.get(data) or _MODELS_BY_KIND["detection" if has_boxes(data) else "classification"]


def is_folder(data: str) -> bool:
    return data not in RECIPES


def describe_default(name: str) -> str:
    """A setting's default in words, with the data sets that have another one."""
    common = getattr(Settings(), name)
    others = {}
    for data, settings in RECIPES.items():
        if (value := getattr(settings, name)) != common:
            others.setdefault(str(value), []).append(data)
    words = [_shown(common), *(f"{value} for {', '.join(names)}" for value, names in others.items())]
    if getattr(_by_size(100), name) != getattr(PHOTOS, name):
        words.append("a folder's follows from its size")
    if name in _FINE_TUNING:
        words.append(f"{_FINE_TUNING[name]} with --pretrained")
    return "; ".join(words)


def _shown(value):
    return "none" if value is None or value == () else str(value)
