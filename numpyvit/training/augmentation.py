"""From the setting `augment` to functions."""

from collections.abc import Mapping, Sequence

from ..data import random_affine, random_box_crop, random_box_flip, random_box_scale, random_crop, random_flip
from ..data.augment import Augmentation
from ..errors import ConfigError

_FUNCTIONS = {
    "affine": lambda options: random_affine(**options),
    "crop": random_crop,
    "flip": random_flip,
    "box_flip": lambda options: random_box_flip(**options),
    "box_scale": lambda options: random_box_scale(*options),
    "box_crop": random_box_crop,
}


def augmentation(spec: Mapping | Sequence[Augmentation]) -> list[Augmentation]:
    """{"affine": {"degrees": 10}, "crop": 4, "flip": 0.5} -> the functions, in that order. Functions stay."""
    if not isinstance(spec, dict):
        return list(spec)
    unknown = [name for name in spec if name not in _FUNCTIONS]
    if unknown:
        raise ConfigError(f"unknown augmentation {unknown[0]!r}; there are {', '.join(_FUNCTIONS)}")
    return [_FUNCTIONS[name](options) for name, options in spec.items()]
