"""Putting published weights into a model that may differ in classes, image size or channels."""

import importlib.resources
import math
import warnings

import numpy as np

from ..backend import array_module
from ..errors import CheckpointError
from ..functional.resample import resize_pos_embed
from ..layers import LayerNorm
from .checkpoint import read_checkpoint
from .swin import fit_windows

_HEADS = ("head.", "head_dist.", "class_embed.", "label_embed.")  # layers with a row for each class
_WITH_NONE = ("class_embed.weight",)  # those with one more row, for "no object"
_SHOWN = 5  # names that a message lists
_MOST_PATCHES = 128 * 128  # that a position embedding is resized from; no published one has more


class Notice(UserWarning):
    """Something about a checkpoint that one should know: a head that was dropped, say."""


def load_pretrained(model, path):
    """Load a checkpoint of any origin into a model; see put_weights. Returns the checkpoint's notes."""
    arrays, notes, origin = read_checkpoint(path)
    put_weights(model, arrays, notes, origin, path)
    return notes


def put_weights(model, arrays, notes, origin, path):
    """Put what read_checkpoint returned into a model, adapting what can be adapted, and set its pretrained_cfg.

    Another number of classes drops the head (with a Notice); another image size resizes the position embedding as the
    file's library does; other channels fold or repeat the patch weights as timm does. What else does not fit is a
    CheckpointError that lists it.
    """
    own = {name: array.data for name, array in (*model.named_parameters(), *model.saved_buffers())}
    dropped = _drop_heads(arrays, own, model.num_classes)
    if dropped and model.num_classes:
        warnings.warn(
            f"{path}: the head for {dropped} classes was dropped; that for {model.num_classes} is new and untrained",
            Notice,
            stacklevel=4,
        )
    _adapt_channels(arrays, own)
    _adapt_pos_embed(arrays, own, model, origin, path)
    if origin == "swin":
        fit_windows(model, arrays)
    kept = {name: data for name, data in own.items() if dropped and name.startswith(_HEADS)}
    _check_fit(type(model).__name__, own, {**kept, **arrays}, path)
    model.load_state_dict({**kept, **arrays})
    if origin == "huggingface":
        for _, layer in model.named_layers():
            if isinstance(layer, LayerNorm):
                layer.eps = 1e-12  # of Hugging Face's ViT and DeiT
    model.pretrained_cfg = {**getattr(model, "pretrained_cfg", {}), **_preparation(arrays, notes, origin, path)}


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


_CHECKS = {  # of notes that say how images were prepared; files may be edited by hand
    "classes": lambda value: _are((str, int, float), value),
    "mean": lambda value: _are((int, float), value),
    "std": lambda value: _are((int, float), value),
    "crop_pct": lambda value: isinstance(value, (int, float)) and 0 < value <= 1,
    "interpolation": lambda value: value in ("squash", "nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"),
}


def _are(kinds, value):
    return isinstance(value, (list, tuple)) and all(isinstance(item, kinds) for item in value)


def _preparation(arrays, notes, origin, path):
    """What the file says of how its images were prepared, as far as that differs from the preset's."""
    cfg = {"crop_pct": 1.0} if "recipe" in notes else {}  # trained here, on whole images if nothing else is said
    for key, check in _CHECKS.items():
        if notes.get(key) is not None:
            if not check(notes[key]):
                raise CheckpointError(f"{path}: its note {key!r} cannot be {notes[key]!r:.80}; save the file again")
            cfg[key] = notes[key]
    if "classes" in cfg:
        return cfg
    if any(name in arrays and arrays[name].size == 1000 for name in ("head.bias", "head.fc.bias")):
        cfg["classes"] = imagenet_classes()
    if origin == "huggingface" and "dist_token" not in arrays:  # its ViT squashes images; its DeiT crops as others
        cfg |= {"interpolation": "squash", "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return cfg


def imagenet_classes():
    """The names of ImageNet-1k's classes in their usual order, from WordNet 3.0."""
    return importlib.resources.files("numpyvit.data").joinpath("imagenet_classes.txt").read_text().splitlines()


def _drop_heads(arrays, own, num_classes):
    """Take out heads for another number of classes; returns that number, or 0 where they fit."""
    name = next((name for name in ("head.fc.weight", "class_embed.weight") if name in arrays), "head.weight")
    weight, none = arrays.get(name), int(name in _WITH_NONE)
    if weight is None or weight.ndim != 2 or (name in own and weight.shape[0] == num_classes + none):
        return 0
    for name in [name for name in arrays if name.startswith(_HEADS)]:
        del arrays[name]
    return weight.shape[0] - none


def _adapt_channels(arrays, own):
    """Fold the patch weights where only their number of channels differs from the model's."""
    name = "patch_embed.proj.weight"
    if name not in arrays or name not in own:
        return
    given, wanted = arrays[name].shape, own[name].shape
    if len(given) == 4 and given[1] > 0 and (given[0], *given[2:]) == (wanted[0], *wanted[2:]):
        arrays[name] = fold_channels(arrays[name], wanted[1])


def fold_channels(weight, in_chans):
    """(D, C, P, P) for another number of channels: one is the sum, more repeat the old ones and keep the sum's size."""
    own = weight.shape[1]
    if own == in_chans:
        return weight
    if in_chans == 1:
        return weight.sum(1, keepdims=True)
    repeated = np.tile(weight, (1, math.ceil(in_chans / own), 1, 1))[:, :in_chans]
    return repeated * (own / in_chans)


def _adapt_pos_embed(arrays, own, model, origin, path):
    """Resize the position embedding where only its number of tokens differs from the model's."""
    if "pos_embed" not in arrays or "pos_embed" not in own:
        return
    given, wanted = arrays["pos_embed"], own["pos_embed"]
    if given.ndim != 3 or given.shape[::2] != wanted.shape[::2] or given.shape[1] == wanted.shape[1]:
        return
    prefix = model.num_prefix_positions
    patches = given.shape[1] - prefix
    side = math.isqrt(max(patches, 0))
    if not 0 < patches == side * side <= _MOST_PATCHES:
        raise CheckpointError(
            f"{path}: its position embedding of {given.shape[1]} tokens is not {prefix} and a square of at most "
            f"{_MOST_PATCHES:,}"
        )
    arrays["pos_embed"] = resize_pos_embed(given, prefix, (side, side), model.patch_embed.grid_size, origin)
