"""Swin's weights as Microsoft, timm, torchvision and Hugging Face name them, translated to timm's names and sizes."""

import math
import re

import numpy as np

from ..core import Layer
from ..errors import CheckpointError
from ..files.budget import Budget
from ..functional.resample import bicubic, resize
from ..layers import WindowAttention
from .renaming import renamed, stacked

_TABLE = "relative_position_bias_table"
_UNUSED = ("relative_position_index", "attn_mask", "mask_token", "pooler.")  # derived, or in no classifier

_NAMES = [
    # Hugging Face, in its files and as transformers 5 has it in memory
    (r"^swin\.", ""),
    (r"^encoder\.layers", "layers"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head.fc."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(self|relative_position_bias)\.(?=relative)", ".attn."),
    (r"\.attention\.(?:self\.)?([qkv])(?:uery|ey|alue|_proj)\.", r".attn.\1."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    # torchvision, whose stages and mergings are features 1 to 2s − 1
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.(\d*[13579])\.", lambda match: f"layers.{int(match[1]) // 2}.blocks."),
    (r"^features\.(\d+)\.", lambda match: f"layers.{int(match[1]) // 2}.downsample."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    # Microsoft, torchvision and old files of timm
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
]


def is_swin(arrays: dict) -> bool:
    """Whether these are the weights of a Swin Transformer, of any library."""
    return any(re.search(rf"(layers\.\d+\.blocks|features)\.\d+\..*{_TABLE}$", name) for name in arrays)


def to_timm(arrays: dict, budget: Budget | None = None) -> dict:
    """{timm's name: array} of a Swin Transformer's weights.

    Microsoft and Hugging Face merge patches at the end of a stage, timm at the beginning of the next. Hugging Face has
    query, key and value apart. budget: what stacking them may take.
    """
    result, parts = {}, {}
    for name, array in arrays.items():
        name = renamed(name, _NAMES)
        if any(part in name for part in _UNUSED):
            continue
        if match := re.fullmatch(r"(.*\.attn)\.([qkv])\.(weight|bias)", name):
            parts[f"{match[1]}.qkv.{match[3]}", match[2]] = array
        else:
            result[name] = array
    result |= stacked(parts, budget or Budget())
    if "layers.0.downsample.reduction.weight" in result:
        result = {re.sub(r"^layers\.(\d+)\.downsample", _next_stage, name): array for name, array in result.items()}
    return result


def _next_stage(match):
    return f"layers.{int(match[1]) + 1}.downsample"


def fit_windows(model: Layer, arrays: dict) -> None:
    """Resize the tables of relative position bias to the model's windows: bicubic, as Microsoft's code does."""
    for path, layer in model.named_layers():
        name = f"{path}.{_TABLE}"
        if isinstance(layer, WindowAttention) and name in arrays:
            arrays[name] = resize_table(arrays[name], layer.window_size, name)


def resize_table(table: np.ndarray, window: tuple[int, int], name: str = _TABLE) -> np.ndarray:
    """((2a − 1)², heads) for square windows of a -> ((2h − 1)·(2w − 1), heads) for windows of (h, w)."""
    size = tuple(2 * side - 1 for side in window)
    side = math.isqrt(len(table))
    if len(table) == math.prod(size):
        return table
    if table.ndim != 2 or side * side != len(table) or side % 2 == 0:
        raise CheckpointError(f"{name} has shape {table.shape}, which is not that of a square window")
    return resize(table.reshape(side, side, -1), size, bicubic).reshape(math.prod(size), -1)
