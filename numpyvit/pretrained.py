"""Putting published weights into a model that may differ in classes, image size or channels."""

import importlib.resources
import math
import warnings

import numpy as np

from .errors import CheckpointError
from .functional.resample import resize_pos_embed
from .io import read_checkpoint
from .layers import LayerNorm
from .weights.swin import fit_windows


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
    own = dict(model.named_parameters())
    dropped = _drop_heads(arrays, own, model.num_classes)
    if dropped and model.num_classes:
        warnings.warn(
            f"{path}: the head for {dropped} classes was dropped; that for {model.num_classes} is new and untrained",
            Notice,
            stacklevel=4,
        )
    if "patch_embed.proj.weight" in arrays:
        weight = arrays["patch_embed.proj.weight"]
        arrays["patch_embed.proj.weight"] = fold_channels(weight, own["patch_embed.proj.weight"].data.shape[1])
    if "pos_embed" in arrays:
        arrays["pos_embed"] = _fit_pos_embed(model, arrays["pos_embed"], origin, path)
    if origin == "swin":
        fit_windows(model, arrays)
    kept = {name: p.data for name, p in own.items() if dropped and name.startswith("head")}
    model.load_state_dict({**kept, **arrays})
    if origin == "huggingface":
        for _, layer in model.named_layers():
            if isinstance(layer, LayerNorm):
                layer.eps = 1e-12  # of Hugging Face's ViT and DeiT
    model.pretrained_cfg = {**getattr(model, "pretrained_cfg", {}), **_preparation(arrays, notes, origin)}


def _preparation(arrays, notes, origin):
    """What the file says of how its pictures were prepared, as far as that differs from the preset's."""
    cfg = {"crop_pct": 1.0} if "recipe" in notes else {}  # trained here, on whole pictures if nothing else is said
    cfg |= {key: notes[key] for key in ("classes", "mean", "std", "crop_pct", "interpolation") if key in notes}
    if "classes" in cfg:
        return cfg
    if any(name in arrays and arrays[name].size == 1000 for name in ("head.bias", "head.fc.bias")):
        cfg["classes"] = imagenet_classes()
    if origin == "huggingface" and "dist_token" not in arrays:  # its ViT squashes pictures; its DeiT crops as others
        cfg |= {"interpolation": "squash", "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return cfg


def imagenet_classes():
    """The names of ImageNet-1k's classes in their usual order, from WordNet 3.0."""
    return importlib.resources.files("numpyvit.data").joinpath("imagenet_classes.txt").read_text().splitlines()


def _drop_heads(arrays, own, num_classes):
    """Take out heads for another number of classes; returns that number, or 0 where they fit."""
    name = "head.fc.weight" if "head.fc.weight" in arrays else "head.weight"
    weight = arrays.get(name)
    if weight is None or (name in own and weight.shape[0] == num_classes):
        return 0
    for name in [name for name in arrays if name.startswith(("head.", "head_dist."))]:
        del arrays[name]
    return weight.shape[0]


def fold_channels(weight, in_chans):
    """(D, C, P, P) for another number of channels: one is the sum, more repeat the old ones and keep the sum's size."""
    own = weight.shape[1]
    if own == in_chans:
        return weight
    if in_chans == 1:
        return weight.sum(1, keepdims=True)
    repeated = np.tile(weight, (1, math.ceil(in_chans / own), 1, 1))[:, :in_chans]
    return repeated * (own / in_chans)


def _fit_pos_embed(model, pos_embed, origin, path):
    prefix, grid = model.num_prefix_positions, model.patch_embed.grid_size
    if pos_embed.ndim != 3 or pos_embed.shape[1] == prefix + math.prod(grid):
        return pos_embed
    side = math.isqrt(pos_embed.shape[1] - prefix)
    if prefix + side * side != pos_embed.shape[1]:
        raise CheckpointError(
            f"{path}: its position embedding of {pos_embed.shape[1]} tokens is not {prefix} and a square"
        )
    return resize_pos_embed(pos_embed, prefix, (side, side), grid, origin)
