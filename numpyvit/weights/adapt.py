"""Putting published weights into a model that may differ in classes, image size or channels."""

import importlib.resources
import math
import os
import warnings

import numpy as np

from ..backend import array_module
from ..core import Layer
from ..data.preprocessing import Preprocessing
from ..errors import CheckpointError, ConfigError
from ..functional.resample import resize_pos_embed
from ..layers import LayerNorm
from .checkpoint import read_checkpoint

_SHOWN = 5  # names that a message lists
_MOST_PATCHES = 128 * 128  # that a position embedding is resized from; no published one has more


class Notice(UserWarning):
    """Something about a checkpoint that one should know: a head that was dropped, say."""


def load_pretrained(model: Layer, path: str | os.PathLike) -> dict:
    """Load a checkpoint of any origin into a model; see put_weights. Returns the checkpoint's notes."""
    arrays, notes, origin = read_checkpoint(path)
    put_weights(model, arrays, notes, origin, path)
    return notes


def put_weights(model: Layer, arrays: dict, notes: dict, origin: str, path: str | os.PathLike) -> None:
    """Put what read_checkpoint returned into a model, adapting what can be adapted, and set its pretrained_cfg.

    Another number of classes drops the head (with a Notice); the model adapts what else it can (adapt_weights): other
    channels, another image size. What then does not fit is a CheckpointError that lists it.
    """
    own = {name: array.data for name, array in (*model.named_parameters(), *model.saved_buffers())}
    heads = tuple(f"{layer}." for layer in model.class_layers)
    dropped = _drop_heads(arrays, heads, model.num_classes and model.num_classes + model.other_classes)
    if dropped and model.num_classes:
        warnings.warn(
            f"{path}: the head for {dropped - model.other_classes} classes was dropped; that for "
            f"{model.num_classes} is new and untrained",
            Notice,
            stacklevel=4,
        )
    try:
        model.adapt_weights(arrays, origin)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    kept = {name: data for name, data in own.items() if dropped and name.startswith(heads)}
    _check_fit(type(model).__name__, own, {**kept, **arrays}, path)
    model.load_state_dict({**kept, **arrays})
    if origin == "huggingface":
        for _, layer in model.named_layers():
            if isinstance(layer, LayerNorm):
                layer.eps = 1e-12  # of Hugging Face's ViT and DeiT
    cfg = getattr(model, "pretrained_cfg", {})
    bias = arrays.get(f"{heads[0]}bias")
    published = _PUBLISHED.get((model.kind, bias.size - model.other_classes)) if bias is not None else None
    if published:
        cfg = {**cfg, "classes": published()}
    model.pretrained_cfg = _pretrained_cfg(cfg, arrays, notes, origin, path)


def _check_fit(kind, own, given, path):
    """Errors: CheckpointError that names the first arrays that do not fit the model, or one with NaN or infinity."""
    problems = [f"missing {name}" for name in own if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in own]
    for name in own:
        if name in given and given[name].shape != own[name].shape:
            problems.append(f"{name}: given {given[name].shape}, expected {own[name].shape}")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(
            f"{path}: does not fit this {kind}: {'; '.join(problems[:_SHOWN])}{more}. Create the model that the file "
            "was saved from, by its name (--model on the command line) and its options"
        )
    for name, array in given.items():
        if array.dtype.kind == "f" and not array_module(array).isfinite(array).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; choose weights from before that")


def _pretrained_cfg(cfg, arrays, notes, origin, path):
    """What the file says of how its images were prepared, and the model's pretrained_cfg for the rest."""
    if "recipe" in notes:
        cfg = {**cfg, "crop_pct": 1.0}  # trained here, on whole images if nothing else is said
    elif origin == "huggingface" and "dist_token" not in arrays:  # its ViT resizes without a crop, its DeiT crops
        cfg = {**cfg, **Preprocessing(interpolation="squash").as_dict()}
    try:
        preprocessing = Preprocessing.of({**cfg, **{name: value for name, value in notes.items() if value is not None}})
    except ConfigError as error:  # files may be edited by hand
        raise CheckpointError(f"{path}: its note {error}; save the file again") from None
    classes = notes.get("classes")
    if classes is None:
        return {**preprocessing.as_dict(), "classes": cfg.get("classes")}
    if not isinstance(classes, (list, tuple)) or not all(isinstance(name, (str, int, float)) for name in classes):
        raise CheckpointError(f"{path}: its note 'classes' cannot be {classes!r:.80}; save the file again")
    return {**preprocessing.as_dict(), "classes": classes}


def imagenet_classes() -> list[str]:
    """The names of ImageNet-1k's classes in their usual order, from WordNet 3.0."""
    return _lines("imagenet_classes.txt")


def coco_classes() -> list[str]:
    """The names of COCO's 91 object classes by their number; "N/A" for those, and for 0, that no image shows."""
    return _lines("coco_classes.txt")


def _lines(name):
    return importlib.resources.files("numpyvit.data").joinpath(name).read_text().splitlines()


# by a model's kind and number of classes: what weights that do not name their classes were trained on
_PUBLISHED = {("classification", 1000): imagenet_classes, ("detection", 91): coco_classes}


def _drop_heads(arrays, heads, rows):
    """Take out heads with another number of rows; returns that number, or 0 where they fit."""
    weight = arrays.get(f"{heads[0]}weight")
    if weight is None or weight.ndim != 2 or (rows and weight.shape[0] == rows):
        return 0
    for name in [name for name in arrays if name.startswith(heads)]:
        del arrays[name]
    return weight.shape[0]


# ---- what models adapt ----------------------------------------------------------------------------------------------


def fit_channels(arrays: dict, name: str, shape: tuple[int, ...]) -> None:
    """Fold the weights that meet the images where only their number of channels differs from a model's."""
    given = arrays[name].shape if name in arrays else ()
    if len(given) == 4 and given[1] > 0 and (given[0], *given[2:]) == (shape[0], *shape[2:]):
        arrays[name] = fold_channels(arrays[name], shape[1])


def fold_channels(weight: np.ndarray, in_chans: int) -> np.ndarray:
    """(D, C, P, P) for another number of channels: one is the sum, more repeat the old ones and keep the sum's size."""
    own = weight.shape[1]
    if own == in_chans:
        return weight
    if in_chans == 1:
        return weight.sum(1, keepdims=True)
    repeated = np.tile(weight, (1, math.ceil(in_chans / own), 1, 1))[:, :in_chans]
    return repeated * (own / in_chans)


def fit_pos_embed(arrays: dict, shape: tuple[int, ...], prefix: int, grid: tuple[int, int], origin: str) -> None:
    """Resize the position embedding where only its number of tokens differs from that of a model.

    shape: the model's, (1, prefix + patches, D), of which `prefix` belong to class and other tokens; grid: its rows and
    columns of patches. Errors: CheckpointError where the given patches are not those of a square image.
    """
    given = arrays.get("pos_embed")
    if given is None or given.ndim != 3 or given.shape[::2] != shape[::2] or given.shape[1] == shape[1]:
        return
    patches = given.shape[1] - prefix
    side = math.isqrt(max(patches, 0))
    if not 0 < patches == side * side <= _MOST_PATCHES:
        raise CheckpointError(
            f"its position embedding of {given.shape[1]} tokens is not {prefix} and a square of at most "
            f"{_MOST_PATCHES:,}"
        )
    arrays["pos_embed"] = resize_pos_embed(given, prefix, (side, side), grid, origin)
