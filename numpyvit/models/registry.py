"""Models by name: one table of variants, `create_model` and `list_models`."""

import difflib
import fnmatch
import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..core import Layer
from ..data.preprocessing import Preprocessing
from ..errors import ConfigError
from ..weights.adapt import load_pretrained
from . import deit, modern, swin, vit
from .model import IMAGENET
from .swin import SwinTransformer


class Variant(NamedTuple):
    """A row of the table: what is called, with which options over its defaults, and how images are prepared."""

    builder: Callable[..., Layer]
    options: dict
    preprocessing: Preprocessing = IMAGENET


FAMILIES = (vit, deit, modern, swin)  # the files with models; each has a table VARIANTS of such rows
VARIANTS = {name: Variant(*row) for family in FAMILIES for name, row in family.VARIANTS.items()}


def list_models(pattern="*"):
    """The names of all presets that match a shell pattern such as "deit*", sorted."""
    return sorted(fnmatch.filter(VARIANTS, pattern))


def _option_names(builder):
    """What a model class takes, those of the classes it passes its options on to included."""
    names = [p for cls in builder.__mro__[:2] for p in inspect.signature(cls).parameters]
    return [name for name in dict.fromkeys(names) if name not in ("dtype", "seed", "args", "options")]


def _recipe(name, options):
    """What a checkpoint needs to build the model again; `unsaved` names options that a file cannot hold."""
    plain, unsaved = {}, []
    for key, value in options.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, (int, float, str, type(None), tuple, list)):
            plain[key] = value
        else:
            unsaved.append(key)
    return {"model": name, "options": plain, **({"unsaved": unsaved} if unsaved else {})}


def preset_options(name):
    """All options of a preset: its own over the defaults of its class."""
    variant = VARIANTS[name]
    classes = variant.builder.__mro__[:2]  # a class may pass options on to the one that it is made from
    defaults = {p.name: p.default for cls in reversed(classes) for p in inspect.signature(cls).parameters.values()}
    return {key: value for key, value in defaults.items() if value is not inspect.Parameter.empty} | variant.options


def count_parameters(name, **overrides):
    """How many parameters a preset has, with options that override its own, by arithmetic: nothing is made."""
    if issubclass(VARIANTS[name].builder, SwinTransformer):
        return swin.count_parameters(**{**VARIANTS[name].options, **overrides})
    options = preset_options(name) | overrides
    D, hidden = options["embed_dim"], int(options["embed_dim"] * options["mlp_ratio"])
    heads = tokens = 2 if options["distilled"] else 1
    registers, placed = options.get("reg_tokens", 0), 0 if options.get("no_embed_class") else tokens
    tokens += registers
    (height, width), (ph, pw) = (np.broadcast_to(options[size], 2).tolist() for size in ("img_size", "patch_size"))
    patches = (height // ph) * (width // pw)
    embed = D * options["in_chans"] * ph * pw + D + (patches + tokens + placed) * D
    block = (
        (6 if options.get("init_values") else 4) * D + (3 * D * D + 3 * D) + (D * D + D) + (2 * D * hidden + hidden + D)
    )
    features, represent = D, 0
    if options["representation_size"] and not options["distilled"]:
        features = options["representation_size"]
        represent = features * (D + 1)
    return embed + options["depth"] * block + 2 * D + represent + heads * (features + 1) * options["num_classes"]


def create_model(name, pretrained=None, *, seed=0, dtype="float32", device="cpu", grad_checkpointing=False, **options):
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
    known = _option_names(variant.builder)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise ConfigError(f"{name} has no option {option!r}; {hint}")
    model = variant.builder(**{**variant.options, **options}, dtype=dtype, seed=seed)
    preprocessing = variant.preprocessing.for_channels({"in_chans": 3, **variant.options, **options}["in_chans"])
    model.pretrained_cfg = {**preprocessing.as_dict(), "classes": None}
    model._recipe = _recipe(name, options)
    model.set_grad_checkpointing(grad_checkpointing)
    if pretrained is not None:
        if isinstance(pretrained, bool):
            raise ConfigError("pretrained takes the path of a checkpoint; nothing is downloaded")
        load_pretrained(model, pretrained)
    return model.to(device)
