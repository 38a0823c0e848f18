"""What a layer may be given."""

from ..errors import ConfigError, DtypeError, ShapeError


def check_float(layer, x):
    """x must be a floating array."""
    if not hasattr(x, "dtype"):
        raise DtypeError(f"{layer.path}: got a {type(x).__name__}, expected an array; convert it with numpy.asarray")
    if x.dtype.kind != "f":
        raise DtypeError(
            f"{layer.path}: got an array of {x.dtype}, expected floating point; convert it with x.astype('float32')"
        )


def check_width(layer, x, width):
    """x must be a floating array (..., width)."""
    check_float(layer, x)
    if x.ndim == 0 or x.shape[-1] != width:
        raise ShapeError(f"{layer.path}: got an array of shape {x.shape}, expected (..., {width})")


def check_map(layer, x, channels=None):
    """x must be a floating array (batch, channels, rows, columns)."""
    check_float(layer, x)
    if x.ndim != 4 or (channels is not None and x.shape[1] != channels):
        expected = "channels" if channels is None else channels
        raise ShapeError(f"{layer.path}: got an array of shape {x.shape}, expected (batch, {expected}, rows, columns)")


def check_rate(name, rate):
    if not 0 <= rate <= 1:
        raise ConfigError(f"{name} is a probability and must lie in 0..1, got {rate}")
    return float(rate)


def check_makes_layers(name, value):
    """act_layer and norm_layer are called to make a layer."""
    if not callable(value):
        raise ConfigError(f"{name} must be a class such as numpyvit.layers.{_MAKERS[name]}, got {value!r}")


_MAKERS = {"act_layer": "ReLU", "norm_layer": "LayerNorm"}
