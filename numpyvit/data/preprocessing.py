"""How images are prepared for a model."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Real

import numpy as np

from ..errors import ConfigError
from .augment import normalize
from .images import INTERPOLATIONS, read_image


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input: resized, its center cropped, normalized channel by channel.

    mean, std:     of each channel, of pixels in 0..1.
    interpolation: of the resize: one of Pillow's, or "squash"; see read_image.
    crop_pct:      the share of the resized image's shorter side that the crop keeps.

    The names are those of timm's pretrained_cfg. The size is the model's: model.input_shape.
    Errors: ConfigError for a value that cannot be.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: str = "bicubic"
    crop_pct: float = 1.0

    def __post_init__(self):
        good = {
            "mean": _are_numbers(self.mean),
            "std": _are_numbers(self.std) and min(self.std, default=1) > 0,
            "interpolation": self.interpolation in INTERPOLATIONS,
            "crop_pct": isinstance(self.crop_pct, Real) and 0 < self.crop_pct <= 1,
        }
        for name, fits in good.items():
            if not fits:
                raise ConfigError(f"{name!r} cannot be {getattr(self, name)!r:.80}")
        for name in ("mean", "std"):  # a file has them as lists
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))

    @classmethod
    def of(cls, notes: Mapping) -> "Preprocessing":
        """From a mapping with these names, such as a model's pretrained_cfg; other names are left out."""
        known = {field.name: notes.get(field.name) for field in fields(cls)}
        return cls(**{name: value for name, value in known.items() if value is not None})

    def as_dict(self) -> dict:
        return asdict(self)

    def for_channels(self, channels: int) -> "Preprocessing":
        """The same for another number of channels: one mean is repeated, several become ½."""
        mean, std = (_resized(values, channels) for values in (self.mean, self.std))
        return Preprocessing(mean, std, self.interpolation, self.crop_pct)

    def read(self, path: str | os.PathLike, image_shape: tuple[int, int, int]) -> np.ndarray:
        """An image file as (C, H, W) uint8."""
        channels, height, width = image_shape
        return read_image(path, (height, width), channels, self.crop_pct, self.interpolation)

    def normalize(self, pixels: np.ndarray, dtype: np.dtype | type = np.float32) -> np.ndarray:
        """uint8 (..., C, H, W) -> (pixels / 255 − mean) / std."""
        return normalize(pixels, self.mean, self.std, dtype)


def _resized(values, channels):
    return values if len(values) == channels else (values if len(values) == 1 else (0.5,)) * channels


def _are_numbers(values):
    return isinstance(values, (list, tuple)) and all(
        isinstance(value, Real) and math.isfinite(value) for value in values
    )
