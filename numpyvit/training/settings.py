"""What each setting of a training run may be, wherever it comes from: a call, the command line, a config.json."""

import math
import numbers

from ..errors import ConfigError, RunError


def _is_int(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value, allowed):
    return isinstance(value, (list, tuple)) and all(map(allowed, value))


def _is_text(value):
    return isinstance(value, str)


def _or_none(allowed):
    return lambda value: value is None or allowed(value)


_COUNT = (lambda value: _is_int(value) and value >= 1, "an int of at least 1")
_NATURAL = (lambda value: _is_int(value) and value >= 0, "an int that is not negative")
_RATE = (lambda value: _is_number(value) and value >= 0, "a finite number that is not negative")
_SHARE = (lambda value: _is_number(value) and 0 <= value <= 1, "a number in 0..1")
_TEXT = (_is_text, "text")
_TEXT_OR_NONE = (_or_none(_is_text), "text or None")

# name: (whether a value can be used, what is expected) of what `fit` takes
SETTINGS = {
    "epochs": _COUNT,
    "steps": (_or_none(_COUNT[0]), "an int of at least 1 or None"),
    "batch_size": _COUNT,
    "lr": _RATE,
    "weight_decay": _RATE,
    "schedule": (lambda value: value in ("constant", "cosine", "step"), "'constant', 'cosine' or 'step'"),
    "warmup_steps": (_or_none(_NATURAL[0]), "an int that is not negative or None"),
    "label_smoothing": _SHARE,
    "clip_norm": (_or_none(lambda value: _is_number(value) and value > 0), "a number above 0 or None"),
    "ema_decay": (
        _or_none(lambda value: _is_number(value) and 0 <= value < 1),
        "a number in 0..1, 1 left out, or None",
    ),
    "seed": _NATURAL,
    "freeze": (lambda value: _is_list(value, _is_text), "a list of patterns such as 'blocks.*'"),
    "layer_decay": (
        _or_none(lambda value: _is_number(value) and 0 < value <= 1),
        "a number in 0..1, 0 left out, or None",
    ),
}
# what the command line keeps beside them
_OF_A_RUN = {
    "model": _TEXT,
    "options": (lambda value: isinstance(value, dict), "an object"),
    "data": _TEXT,
    "data_dir": _TEXT_OR_NONE,
    "augment": (lambda value: isinstance(value, dict), "an object"),
    "pretrained": _TEXT_OR_NONE,
    "preparation": (_or_none(lambda value: isinstance(value, dict)), "an object or null"),
}
_OPTIONS = {
    "img_size": (lambda value: _is_list(value, _COUNT[0]) and len(value) == 2, "a list of height and width"),
    "in_chans": _COUNT,
    "num_classes": _COUNT,
    "drop_rate": _SHARE,
    "drop_path_rate": _SHARE,
}
_PREPARATION = {
    "mean": (lambda value: _is_list(value, _is_number), "a list of numbers"),
    "std": (lambda value: _is_list(value, lambda x: _is_number(x) and x > 0), "a list of numbers above 0"),
    "crop_pct": (lambda value: _is_number(value) and 0 < value <= 1, "a number in 0..1, 0 left out"),
    "interpolation": (
        lambda value: value in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "squash"),
        "a method of Pillow's or 'squash'",
    ),
}


_AUGMENT = {"affine": (lambda value: isinstance(value, dict), "an object"), "crop": _NATURAL, "flip": _SHARE}
_AFFINE = {"degrees": _RATE, "shift": _RATE, "scale": _SHARE}


def check_settings(settings, known=SETTINGS):
    """Errors: ConfigError naming the first setting that is unknown or cannot be used."""
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}; remove it")
        allowed, expected = known[name]
        if not allowed(value):
            raise ConfigError(f"{name} must be {expected}, got {value!r:.80}")


def check_stored(config, file):
    """Check the settings of a config.json, which somebody may have edited. Errors: RunError naming file and setting."""
    try:
        check_settings(config, {**SETTINGS, **_OF_A_RUN})
        check_settings(config.get("options", {}), _OPTIONS)
        check_settings(config.get("preparation") or {}, _PREPARATION)
        check_settings(config.get("augment", {}), _AUGMENT)
        check_settings(config.get("augment", {}).get("affine", {}), _AFFINE)
    except ConfigError as error:
        raise RunError(f"{file}: {error}; correct the file or choose another --out") from None


def default_warmup(most, batches):
    """So many steps, or half an epoch where that is less: not more than the set allows, however long the run."""
    return min(most, batches // 2)
