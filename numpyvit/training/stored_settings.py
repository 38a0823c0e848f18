"""The config.json of a run that is resumed, which somebody may have edited."""

import os
from collections.abc import Mapping

from ..data.images import INTERPOLATIONS
from ..errors import ConfigError, RunError
from .settings import (
    COUNT,
    FACTOR,
    KINDS,
    NATURAL,
    NUMBERS,
    OBJECT,
    RATE,
    SHARE,
    TEXT,
    Kind,
    check_settings,
    is_list,
    one_of,
    optional,
)

# what the command line keeps beside the settings
_OF_A_RUN = {
    "model": TEXT,
    "options": OBJECT,
    "data": TEXT,
    "data_dir": optional(TEXT),
    "augment": OBJECT,
    "pretrained": optional(TEXT),
    "teacher": optional(TEXT),
    "task": OBJECT,
    "distillation": optional(one_of("hard", "soft")),
    "preparation": Kind(lambda value: value is None or isinstance(value, dict), "an object or null"),
}
_OPTIONS = {
    "img_size": Kind(
        lambda value: COUNT.allows(value) or (is_list(value, COUNT.allows) and len(value) == 2),
        "a list of height and width, or the shorter side",
    ),
    "in_chans": COUNT,
    "num_classes": COUNT,
    "drop_rate": SHARE,
    "drop_path_rate": SHARE,
}
_PREPARATION = {
    "mean": NUMBERS,
    "std": Kind(lambda value: NUMBERS.allows(value) and min(value) > 0, "a list of numbers above 0"),
    "crop_pct": FACTOR,
    "interpolation": one_of(*INTERPOLATIONS),
}
_AUGMENT = {
    "affine": OBJECT,
    "crop": NATURAL,
    "flip": SHARE,
    "box_flip": OBJECT,
    "box_scale": NUMBERS,
    "box_crop": SHARE,
}
_AFFINE = {"degrees": RATE, "shift": RATE, "scale": SHARE}


def check_stored(config: Mapping, file: str | os.PathLike) -> None:
    """Errors: RunError naming the file and the first setting that is missing, unknown or cannot be used."""
    try:
        check_settings(config, {**KINDS, **_OF_A_RUN})
        check_settings(config.get("options", {}), _OPTIONS)
        check_settings(config.get("preparation") or {}, _PREPARATION)
        check_settings(config.get("augment", {}), _AUGMENT)
        check_settings(config.get("augment", {}).get("affine", {}), _AFFINE)
    except ConfigError as error:
        raise RunError(f"{file}: {error}; correct the file or choose another --out") from None
    missing = [name for name in (*KINDS, "model", "data") if name not in config]
    if missing:
        raise RunError(
            f"{file}: has no setting {missing[0]!r}, so it is of another version or no run of `numpyvit train`; "
            "begin again with another --out"
        )
