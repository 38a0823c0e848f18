"""The names that each library gives to a ViT's weights, brought to timm's."""

import re

import numpy as np

from .errors import CheckpointError
from .weights import swin

_UNUSED = ("pooler.", "mask_token", "num_batches_tracked")  # parts of published files that no classifier has


def to_timm(arrays):
    """-> ({timm's name: array}, origin), origin one of "timm", "torchvision", "huggingface", "google", "swin"."""
    arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    if swin.is_swin(arrays):
        return swin.to_timm(arrays), "swin"
    names = {re.sub(r"^(params|opt/target)/", "", name) for name in arrays}
    if any(name.removeprefix("img/") == "embedding/kernel" for name in names):
        return _from_google(arrays), "google"
    if "conv_proj.weight" in arrays:
        return _renamed(arrays, _TORCHVISION), "torchvision"
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in arrays):
        return _from_huggingface(arrays), "huggingface"
    return _renamed(arrays, _TIMM), "timm"


def _renamed(arrays, rules):
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


def _from_huggingface(arrays):
    """Query, key and value lie apart and are stacked to one qkv."""
    arrays = {re.sub(r"^(vit|deit)\.", "", name): array for name, array in arrays.items()}
    pattern = re.compile(
        r"(?:encoder\.layer|layers)\.(\d+)\.attention\.(?:attention\.)?(query|key|value|[qkv]_proj)\.(weight|bias)"
    )
    long = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
    parts = {}
    for name, array in arrays.items():
        if match := pattern.fullmatch(name):
            parts[match[1], long.get(match[2], match[2]), match[3]] = array
    result = _renamed({name: array for name, array in arrays.items() if not pattern.fullmatch(name)}, _HUGGINGFACE)
    for (layer, part, kind), _ in parts.items():
        if part == "query":
            result[f"blocks.{layer}.attn.qkv.{kind}"] = np.concatenate(_three(parts, layer, kind))
    return result


def _from_google(arrays):
    """JAX's kernels are (in, out), the patches' (P, P, C, D), and heads are an axis of their own."""
    arrays = {re.sub(r"^(params|opt/target)/(img/)?", "", name): array for name, array in arrays.items()}
    result = {"cls_token": arrays.pop("cls")} if "cls" in arrays else {}
    for name in ("pos_embedding", "Transformer/posembed_input/pos_embedding"):
        if name in arrays:
            result["pos_embed"] = arrays.pop(name)
    result["patch_embed.proj.weight"] = arrays.pop("embedding/kernel").transpose(3, 2, 0, 1)
    result["patch_embed.proj.bias"] = arrays.pop("embedding/bias")
    attention = {}
    for name, array in arrays.items():
        new = name
        for pattern, replacement in _GOOGLE:
            new = re.sub(f"^{pattern}", replacement, new)
        new = re.sub(r"/(scale|kernel)$", ".weight", new).replace("/bias", ".bias")
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.(query|key|value)\.(weight|bias)", new):
            dim = array.shape[0] if match[3] == "weight" else array.size
            attention[match.groups()] = array.reshape(dim, -1).T if match[3] == "weight" else array.reshape(-1)
        elif new.endswith("attn.proj.weight"):
            result[new] = array.reshape(-1, array.shape[-1]).T  # (H, D/H, D) -> (D, D)
        else:
            result[new] = array.T if name.endswith("kernel") else array
    for layer, part, kind in attention:
        if part == "query":
            result[f"blocks.{layer}.attn.qkv.{kind}"] = np.concatenate(_three(attention, layer, kind))
    return result


_GOOGLE = [
    (r"Transformer/encoder_norm", "norm"),
    (r"Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"(blocks\.\d+\.)LayerNorm_0", r"\1norm1"),
    (r"(blocks\.\d+\.)LayerNorm_[12]", r"\1norm2"),
    (r"(blocks\.\d+\.)MlpBlock_\d/Dense_0", r"\1mlp.fc1"),
    (r"(blocks\.\d+\.)MlpBlock_\d/Dense_1", r"\1mlp.fc2"),
    (r"(blocks\.\d+\.)MultiHeadDotProductAttention_\d/out", r"\1attn.proj"),
    (r"(blocks\.\d+\.)MultiHeadDotProductAttention_\d/", r"\1attn."),
    (r"pre_logits", "pre_logits.fc"),
]


def _three(parts, layer, kind):
    try:
        return [parts[layer, part, kind] for part in ("query", "key", "value")]
    except KeyError as missing:
        raise CheckpointError(f"block {layer} lacks its {missing.args[0][1]} {kind}") from None
