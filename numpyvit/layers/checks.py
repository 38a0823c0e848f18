"""What a layer may be given."""

import numpy as np

from ..backend import Array
from ..core import Layer
from ..errors import ConfigError, DtypeError, ShapeError


def check_float(layer: Layer, x: Array) -> None:
    """x must be a floating array."""
    if not hasattr(getattr(x, "dtype", None), "kind"):  # a tensor of PyTorch has a dtype of another form
        raise DtypeError(f"{layer.path}: got a {type(x).__name__}, expected an array; convert it with numpy.asarray")
    if x.dtype.kind != "f":
        raise DtypeError(
            f"{layer.path}: got an array of {x.dtype}, expected floating point; convert it with x.astype('float32')"
        )


def check_width(layer: Layer, x: Array, width: int) -> None:
    """x must be a floating array (..., width)."""
    check_float(layer, x)
    if x.ndim == 0 or x.shape[-1] != width:
        raise ShapeError(f"{layer.path}: got an array of shape {x.shape}, expected (..., {width})")


def check_map(layer: Layer, x: Array, channels: int | None = None) -> None:
    """x must be a floating array (batch, channels, rows, columns)."""
    check_float(layer, x)
    if x.ndim != 4 or (channels is not None and x.shape[1] != channels):
        expected = "channels" if channels is None else channels
        raise ShapeError(f"{layer.path}: got an array of shape {x.shape}, expected (batch, {expected}, rows, columns)")


def check_counts(least: int = 1, /, **counts: int) -> None:
    """Errors: ConfigError for one that is not an int of at least `least`."""
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(f"{name} must be an int of at least {least}, got {value!r}")


def check_rate(name: str, rate: float) -> float:
    if not 0 <= rate <= 1:
        raise ConfigError(f"{name} is a probability and must lie in 0..1, got {rate}")
    return float(rate)


def check_makes_layers(name: str, value: object) -> None:
    """act_layer and norm_layer are called to make a layer."""
    if not callable(value):
        raise ConfigError(f"{name} must be a class such as numpyvit.layers.{_MAKERS[name]}, got {value!r}")


_MAKERS = {"act_layer": "ReLU", "norm_layer": "LayerNorm"}
