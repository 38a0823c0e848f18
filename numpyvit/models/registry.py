"""Models by name: one table of variants, `create_model` and `list_models`."""

import difflib
import fnmatch
import inspect
import os
from collections.abc import Callable
from typing import NamedTuple

from ..core import Layer, Seed
from ..data.preprocessing import Preprocessing
from ..errors import ConfigError
from ..weights.adapt import load_pretrained
from . import deit, detr, modern, resnet, swin, vit
from .model import IMAGENET


class Variant(NamedTuple):
    """A row of the table: what is called, with which options over its defaults, and how images are prepared.

    The builder takes `dtype` and `seed` as well and returns a Model. One with a `count_parameters(**options)` and a
    `count_multiply_adds(**options)` lets the size of a model be known before it is made.
    """

    builder: Callable[..., Layer]
    options: dict
    preprocessing: Preprocessing = IMAGENET


FAMILIES = (vit, deit, modern, swin, resnet, detr)  # the files with models; each has a table VARIANTS of rows by name
VARIANTS = {name: Variant(*row) for family in FAMILIES for name, row in family.VARIANTS.items()}


def list_models(pattern: str = "*") -> list[str]:
    """The names of all presets that match a shell pattern such as "deit*", sorted."""
    return sorted(fnmatch.filter(VARIANTS, pattern))


def _parameters(builder):
    """{name: inspect.Parameter} of the options of what makes a model, with those that a class passes on to its base."""
    parameters = inspect.signature(builder).parameters.values()
    passed_on = isinstance(builder, type) and any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    named = {p.name: p for p in known if p.name not in ("dtype", "seed")}  # which every builder takes
    return {**(_parameters(builder.__base__) if passed_on else {}), **named}


def _build_config(name, options):
    """See Layer.build_config."""
    plain, unsaved = {}, []
    for key, value in options.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, (int, float, str, type(None), tuple, list)):
            plain[key] = value
        else:
            unsaved.append(key)
    return {"model": name, "options": plain, **({"unsaved": unsaved} if unsaved else {})}


def preset_options(name: str) -> dict:
    """All options of a preset: its own over the defaults of its builder."""
    builder, options, _ = VARIANTS[name]
    defaults = {p.name: p.default for p in _parameters(builder).values() if p.default is not p.empty}
    return defaults | options


def count_parameters(name: str, **overrides) -> int:
    """How many parameters a preset has, with options that override its own.

    By the builder's count_parameters where it has one, so that nothing is made; else of the model itself.
    """
    builder, options = VARIANTS[name].builder, preset_options(name) | overrides
    if hasattr(builder, "count_parameters"):
        return builder.count_parameters(**options)
    return builder(**options).num_parameters()


def count_multiply_adds(name: str, **overrides) -> int:
    """How many multiply-adds a preset takes for one image, see `summary`, with options that override its own.

    By the builder's count_multiply_adds where it has one, so that nothing is computed; else by the model itself.
    """
    builder, options = VARIANTS[name].builder, preset_options(name) | overrides
    if hasattr(builder, "count_multiply_adds"):
        return builder.count_multiply_adds(**options)
    return builder(**options).multiply_adds()


def create_model(
    name: str,
    pretrained: str | os.PathLike | None = None,
    *,
    seed: Seed = 0,
    dtype: str = "float32",
    device: str = "cpu",
    grad_checkpointing: bool = False,
    **options,
) -> Layer:
    """A model by the name of its preset.

    options:    override the preset's, e.g. num_classes=10, img_size=32, drop_path_rate=0.1 (see VisionTransformer).
    pretrained: path of a checkpoint of any common origin (see numpyvit.weights).
    seed:       of the initial weights; dtype: "float32" or "float64"; device: "cpu" or "cuda".
    grad_checkpointing: each block keeps only its input for backward and runs forward again there: less memory in
                training, more time, the same gradients bit for bit.
    Errors: ConfigError for an unknown name (with near ones) or option; CheckpointError for weights that do not fit.
    """
    if not isinstance(name, str) or name not in VARIANTS:
        near = difflib.get_close_matches(str(name), VARIANTS, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "numpyvit.list_models() names them all"
        raise ConfigError(f"unknown model {name!r}; {hint}")
    variant = VARIANTS[name]
    known = _parameters(variant.builder)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise ConfigError(f"{name} has no option {option!r}; {hint}")
    model = variant.builder(**{**variant.options, **options}, dtype=dtype, seed=seed)
    preprocessing = variant.preprocessing.for_channels({"in_chans": 3, **variant.options, **options}["in_chans"])
    model.pretrained_cfg = {**preprocessing.as_dict(), "classes": None}
    model.build_config = _build_config(name, options)
    if grad_checkpointing:
        model.set_grad_checkpointing()
    if pretrained is not None:
        if isinstance(pretrained, bool):
            raise ConfigError("pretrained takes the path of a checkpoint; nothing is downloaded")
        load_pretrained(model, pretrained)
    return model.to(device)
