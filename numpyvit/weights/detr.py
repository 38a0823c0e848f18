"""DETR's weights as its own code and Hugging Face name them, translated to the names of its code."""

import re

from ..files.budget import Budget
from .renaming import renamed, stacked

_NAMES = [  # Hugging Face, in its files and as transformers 5 has it in memory
    (r"^model\.", ""),
    (r"^backbone\.(conv_encoder\.)?model\.", "backbone.0.body."),
    (r"\.body\.embedder\.embedder\.convolution\.", ".body.conv1."),
    (r"\.body\.embedder\.embedder\.normalization\.", ".body.bn1."),
    (r"\.body\.encoder\.stages\.(\d+)\.layers\.", lambda match: f".body.layer{int(match[1]) + 1}."),
    (r"(layer\d+\.\d+)\.shortcut\.convolution\.", r"\1.downsample.0."),
    (r"(layer\d+\.\d+)\.shortcut\.normalization\.", r"\1.downsample.1."),
    (r"(layer\d+\.\d+)\.layer\.(\d+)\.convolution\.", lambda match: f"{match[1]}.conv{int(match[2]) + 1}."),
    (r"(layer\d+\.\d+)\.layer\.(\d+)\.normalization\.", lambda match: f"{match[1]}.bn{int(match[2]) + 1}."),
    (r"^(?:backbone\.)?position_embedding\.(row|col)(?:umn)?_embeddings\.", r"backbone.1.\1_embed."),
    (r"^query_position_embeddings\.", "query_embed."),
    (r"^input_projection\.", "input_proj."),
    (r"^(encoder|decoder)\.layers\.", r"transformer.\1.layers."),
    (r"^(encoder|decoder)\.layernorm\.", r"transformer.\1.norm."),
    (r"\.encoder_attn\.", ".multihead_attn."),
    (r"(_attn)\.o_proj\.", r"\1.out_proj."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"(encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"(decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm3."),
    (r"(layers\.\d+)\.(?:mlp\.)?fc([12])\.", r"\1.linear\2."),
    (r"^class_labels_classifier\.", "class_embed."),
    (r"^bbox_predictor\.", "bbox_embed."),
]


def is_detr(arrays: dict) -> bool:
    """Whether these are the weights of a DETR, of its own code or of Hugging Face."""
    return {"class_embed.weight", "bbox_embed.layers.0.weight"} <= arrays.keys() or {
        "class_labels_classifier.weight",
        "bbox_predictor.layers.0.weight",
    } <= arrays.keys()


def to_official(arrays: dict, budget: Budget | None = None) -> dict:
    """{official name: array}. Hugging Face has the projections of queries, keys and values apart: they are stacked.

    budget: what stacking may take. Errors: CheckpointError where one of the three is missing, or their shapes differ.
    """
    result, parts = {}, {}
    for name, array in arrays.items():
        name = renamed(name, _NAMES)
        if match := re.fullmatch(r"(.*_attn)\.([qkv])_proj\.(weight|bias)", name):
            parts[f"{match[1]}.in_proj_{match[3]}", match[2]] = array
        else:
            result[name] = array
    return result | stacked(parts, budget or Budget())
