"""Models by name: one table of variants, `create_model` and `list_models`."""

import difflib
import fnmatch
import inspect
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..errors import ConfigError
from . import detr, resnet, swin
from .detr import DETR, AnchorDETR
from .modern import ModernVisionTransformer
from .resnet import ResNet
from .swin import NarrowSwinTransformer, SwinTransformer
from .vit import NarrowVisionTransformer, VisionTransformer

__all__ = [
    "DETR",
    "AnchorDETR",
    "ModernVisionTransformer",
    "NarrowVisionTransformer",
    "ResNet",
    "SwinTransformer",
    "VisionTransformer",
    "create_model",
    "list_models",
]


@dataclass(frozen=True)
class Variant:
    """A preset: the class to call and the options that differ from its defaults."""

    options: dict
    model_class: type = VisionTransformer


def _vit(patch_size, embed_dim, depth, num_heads, img_size=224, model_class=VisionTransformer, **options):
    sizes = dict(img_size=img_size, patch_size=patch_size, embed_dim=embed_dim, depth=depth, num_heads=num_heads)
    return Variant({**sizes, **options}, model_class)


_narrow = partial(_vit, model_class=NarrowVisionTransformer, num_classes=10)
_modern = partial(_vit, model_class=ModernVisionTransformer)

_TINY, _SMALL, _BASE, _LARGE, _HUGE = (192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1280, 32, 16)

# name: options of VisionTransformer. Names, sizes and defaults are timm's; those for 8, 28 and 32 pixels are our own.
VARIANTS = {
    "vit_tiny_patch16_224": _vit(16, *_TINY),
    "vit_small_patch16_224": _vit(16, *_SMALL),
    "vit_small_patch32_224": _vit(32, *_SMALL),
    "vit_base_patch16_224": _vit(16, *_BASE),
    "vit_base_patch16_384": _vit(16, *_BASE, img_size=384),
    "vit_base_patch32_224": _vit(32, *_BASE),
    "vit_large_patch16_224": _vit(16, *_LARGE),
    "vit_large_patch32_224": _vit(32, *_LARGE),
    "vit_huge_patch14_224": _vit(14, *_HUGE),
    "deit_tiny_patch16_224": _vit(16, *_TINY),
    "deit_small_patch16_224": _vit(16, *_SMALL),
    "deit_base_patch16_224": _vit(16, *_BASE),
    "deit_base_patch16_384": _vit(16, *_BASE, img_size=384),
    "deit_tiny_distilled_patch16_224": _vit(16, *_TINY, distilled=True),
    "deit_small_distilled_patch16_224": _vit(16, *_SMALL, distilled=True),
    "deit_base_distilled_patch16_224": _vit(16, *_BASE, distilled=True),
    "deit_base_distilled_patch16_384": _vit(16, *_BASE, img_size=384, distilled=True),
    "deit3_small_patch16_224": _modern(16, *_SMALL, init_values=1e-6, no_embed_class=True),
    "deit3_base_patch16_224": _modern(16, *_BASE, init_values=1e-6, no_embed_class=True),
    "vit_small_patch14_dinov2": _modern(14, *_SMALL, img_size=518, num_classes=0, init_values=1e-5),
    "vit_base_patch14_dinov2": _modern(14, *_BASE, img_size=518, num_classes=0, init_values=1e-5),
    "vit_small_patch14_reg4_dinov2": _modern(
        14, *_SMALL, img_size=518, num_classes=0, init_values=1e-5, reg_tokens=4, no_embed_class=True
    ),
    "vit_micro_patch2_8": _narrow(2, 64, 4, 4, in_chans=1, img_size=8, mlp_ratio=2.0),
    "vit_micro_patch7_28": _narrow(7, 64, 4, 4, in_chans=1, img_size=28),
    "vit_micro_patch4_28": _narrow(4, 64, 6, 4, in_chans=1, img_size=28, mlp_ratio=2.0),
    "vit_micro_patch4_32": _narrow(4, 96, 6, 4, img_size=32, mlp_ratio=2.0),
    "vit_mini_patch4_32": _narrow(4, 192, 6, 3, img_size=32),
    **{name: Variant(options, model_class) for name, (model_class, options) in swin.VARIANTS.items()},
    **{name: Variant(options, model_class) for name, (model_class, options) in resnet.VARIANTS.items()},
    **{name: Variant(options, model_class) for name, (model_class, options) in detr.VARIANTS.items()},
}


def list_models(pattern="*"):
    """The names of all presets that match a shell pattern such as "deit*", sorted."""
    return sorted(fnmatch.filter(VARIANTS, pattern))


def _option_names(model_class):
    """What a model class takes, those of the classes it passes its options on to included."""
    names = [p for cls in model_class.__mro__[:2] for p in inspect.signature(cls).parameters]
    return [name for name in dict.fromkeys(names) if name not in ("dtype", "seed", "args", "options")]


def _preparation(name, model):
    """How images are prepared for a preset, as timm has it: mean, std, interpolation, crop_pct; class names."""
    if isinstance(model, DETR):
        return detr.preparation(model.in_chans, VARIANTS[name].options)
    if isinstance(model, ResNet):
        return resnet.preparation(model.input_shape[0])
    half, in_chans = (0.5,), model.patch_embed.proj.weight.data.shape[1]
    own_size = VARIANTS[name].model_class in (NarrowVisionTransformer, NarrowSwinTransformer)
    mean, std = half * in_chans, half * in_chans
    if (name.startswith(("deit", "swin")) or name.endswith("dinov2")) and in_chans == 3 and not own_size:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    crop_pct = 1.0 if own_size or max(model.patch_embed.img_size) >= 384 else 0.9
    return {"mean": mean, "std": std, "interpolation": "bicubic", "crop_pct": crop_pct, "classes": None}


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


def class_names(model):
    """The names of a model's classes: those of its checkpoint, else numbers."""
    known = list(getattr(model, "pretrained_cfg", {}).get("classes") or [])
    return known + [f"class {i}" for i in range(len(known), model.num_classes)]


def preset_options(name):
    """All options of a preset: its own over the defaults of its class."""
    variant = VARIANTS[name]
    classes = variant.model_class.__mro__[:2]  # a class may pass options on to the one that it is made from
    defaults = {p.name: p.default for cls in reversed(classes) for p in inspect.signature(cls).parameters.values()}
    return {key: value for key, value in defaults.items() if value is not inspect.Parameter.empty} | variant.options


def count_parameters(name, **overrides):
    """How many parameters a preset has, with options that override its own, by arithmetic: nothing is made."""
    if issubclass(VARIANTS[name].model_class, DETR):
        return detr.count_parameters(**{**preset_options(name), **overrides})
    if VARIANTS[name].model_class is ResNet:
        return resnet.count_parameters(**{**VARIANTS[name].options, **overrides})
    if issubclass(VARIANTS[name].model_class, SwinTransformer):
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
    known = _option_names(variant.model_class)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise ConfigError(f"{name} has no option {option!r}; {hint}")
    model = variant.model_class(**{**variant.options, **options}, dtype=dtype, seed=seed)
    model.pretrained_cfg = _preparation(name, model)
    model._recipe = _recipe(name, options)
    model.set_grad_checkpointing(grad_checkpointing)
    if pretrained is not None:
        if isinstance(pretrained, bool):
            raise ConfigError("pretrained takes the path of a checkpoint; nothing is downloaded")
        from ..weights.adapt import load_pretrained

        load_pretrained(model, pretrained)
    return model.to(device)
