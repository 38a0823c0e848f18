"""The names that each library gives to a ViT's weights, translated to timm's."""

import math
import re

import numpy as np

from ..errors import CheckpointError
from ..files.budget import Budget
from . import detr, resnet, swin
from .renaming import renamed, stacked, without_counts

_UNUSED = ("pooler.", "mask_token")  # parts of published files that no classifier has


def to_timm(arrays: dict[str, np.ndarray], budget: Budget | None = None) -> tuple[dict[str, np.ndarray], str]:
    """-> ({timm's name: array}, origin), origin one of "timm", "torchvision", "huggingface", "google", "swin", "detr".

    budget: what the arrays that are made may take (see budget.py). `arrays` is emptied, so that what is stacked to a
    new array can be freed. Errors: CheckpointError for arrays that cannot be what their names say.
    """
    budget = budget or Budget()
    arrays = without_counts({name.removeprefix("module."): arrays.pop(name) for name in list(arrays)})
    if detr.is_detr(arrays):
        return detr.to_official(arrays, budget), "detr"
    if swin.is_swin(arrays):
        return swin.to_timm(arrays, budget), "swin"
    if resnet.is_huggingface(arrays):
        return resnet.to_torchvision(arrays), "timm"
    names = {re.sub(r"^(params|opt/target)/", "", name) for name in arrays}
    if any(name.removeprefix("img/") == "embedding/kernel" for name in names):
        return _from_google(arrays, budget), "google"
    if "conv_proj.weight" in arrays:
        return _by_first_rule(arrays, _TORCHVISION), "torchvision"
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in arrays):
        return _from_huggingface(arrays, budget), "huggingface"
    return _by_first_rule(arrays, _TIMM), "timm"


def _by_first_rule(arrays, rules):
    """Each name with the first rule that fits it whole; names that none fits stay."""
    result = {}
    for name, array in arrays.items():
        if any(part in name for part in _UNUSED):
            continue
        for pattern, replacement in rules:
            new, count = re.subn(f"^{pattern}$", replacement, name)
            if count:
                name = new
                break
        result[name] = array
    return result


_TIMM = [(r"(blocks\.\d+)\.gamma_([12])", r"\1.ls\2.gamma")]  # DeiT-III's LayerScale

_TORCHVISION = [
    (r"class_token", "cls_token"),
    (r"conv_proj\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(.*)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(.*)", r"norm.\1"),
    (r"heads\.pre_logits\.(.*)", r"pre_logits.fc.\1"),
    (r"heads\.head\.(.*)", r"head.\1"),
]

_HUGGINGFACE = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(.*)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(.*)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"layers\.(\d+)\.layernorm_before\.(.*)", r"blocks.\1.norm1.\2"),  # as transformers 5 has it in memory
    (r"layers\.(\d+)\.layernorm_after\.(.*)", r"blocks.\1.norm2.\2"),
    (r"layers\.(\d+)\.attention\.o_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"layers\.(\d+)\.mlp\.(fc[12])\.(.*)", r"blocks.\1.mlp.\2.\3"),
    (r"layernorm\.(.*)", r"norm.\1"),
    (r"(?:cls_)?classifier\.(.*)", r"head.\1"),
    (r"distillation_classifier\.(.*)", r"head_dist.\1"),
]


def _from_huggingface(arrays, budget):
    """Query, key and value lie apart and are stacked to one qkv."""
    pattern = re.compile(
        r"(?:encoder\.layer|layers)\.(\d+)\.attention\.(?:attention\.)?(query|key|value|[qkv]_proj)\.(weight|bias)"
    )
    parts, rest = {}, {}
    for name in list(arrays):
        array, name = arrays.pop(name), re.sub(r"^(vit|deit)\.", "", name)
        if match := pattern.fullmatch(name):
            parts[f"blocks.{match[1]}.attn.qkv.{match[3]}", match[2][0]] = array
        else:
            rest[name] = array
    return {**_by_first_rule(rest, _HUGGINGFACE), **stacked(parts, budget, _block)}


def _from_google(arrays, budget):
    """JAX's kernels are (in, out), the patches' (P, P, C, D), and heads are an axis of their own."""
    arrays = {re.sub(r"^(params|opt/target)/(img/)?", "", name): arrays.pop(name) for name in list(arrays)}
    result, parts = {}, {}
    for name in list(arrays):
        array, new = arrays.pop(name), renamed(name, _GOOGLE)
        new = re.sub(r"/(scale|kernel)$", ".weight", new).replace("/bias", ".bias")
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.(query|key|value)\.(weight|bias)", new):
            leading = 1 if match[3] == "weight" else 0  # (D, H, D/H) -> (D, D) and (H, D/H) -> (D)
            joined = _joined(name, array, leading, array.ndim, budget)
            parts[f"blocks.{match[1]}.attn.qkv.{match[3]}", match[2][0]] = joined.T
        elif new.endswith("attn.proj.weight"):
            result[new] = _joined(name, array, 0, array.ndim - 1, budget).T  # (H, D/H, D) -> (D, D)
        elif name == "embedding/kernel":
            result[new] = _of_rank(4, name, array).transpose(3, 2, 0, 1)
        else:
            result[new] = array.T if name.endswith("kernel") else array
    return {**result, **stacked(parts, budget, _block)}


def _joined(name, array, start, stop, budget):
    """The axes from `start` to `stop` as one."""
    if not 0 <= start < stop:
        raise CheckpointError(f"{name} has shape {array.shape}, which has too few dimensions")
    if not array.flags.c_contiguous:  # reshape would copy it
        array, given = budget.empty(array.shape, array.dtype), array
        array[...] = given
    shape = array.shape
    return array.reshape(*shape[:start], math.prod(shape[start:stop]), *shape[stop:])


def _of_rank(rank, name, array):
    if array.ndim != rank:
        raise CheckpointError(f"{name} has shape {array.shape}, expected {rank} dimensions")
    return array


_GOOGLE = [
    (r"^Transformer/encoder_norm", "norm"),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"^(blocks\.\d+\.)LayerNorm_0", r"\1norm1"),
    (r"^(blocks\.\d+\.)LayerNorm_[12]", r"\1norm2"),
    (r"^(blocks\.\d+\.)MlpBlock_\d/Dense_0", r"\1mlp.fc1"),
    (r"^(blocks\.\d+\.)MlpBlock_\d/Dense_1", r"\1mlp.fc2"),
    (r"^(blocks\.\d+\.)MultiHeadDotProductAttention_\d/out", r"\1attn.proj"),
    (r"^(blocks\.\d+\.)MultiHeadDotProductAttention_\d/", r"\1attn."),
    (r"^pre_logits", "pre_logits.fc"),
    (r"^embedding/", "patch_embed.proj/"),
    (r"^cls$", "cls_token"),
    (r"^(?:Transformer/posembed_input/)?pos_embedding$", "pos_embed"),
]


def _block(name):
    """What errors call the block of a weight: blocks.1.attn.qkv.weight -> block 1."""
    return f"block {name.split('.')[1]}"
