"""A tiny model, and its weights under the names that other libraries give them."""

import re
from functools import partial

import numpy as np

import numpyvit as nv

TINY = dict(img_size=8, patch_size=4, in_chans=3, num_classes=5, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2.0)


def tiny(**options):
    return nv.VisionTransformer(**{**TINY, **options})


def torchvision_names(state):
    rules = [
        (r"cls_token", "class_token"),
        (r"pos_embed", "encoder.pos_embedding"),
        (r"patch_embed\.proj", "conv_proj"),
        (r"blocks\.(\d+)\.norm([12])", r"encoder.layers.encoder_layer_\1.ln_\2"),
        (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
        (r"blocks\.(\d+)\.attn\.proj", r"encoder.layers.encoder_layer_\1.self_attention.out_proj"),
        (r"blocks\.(\d+)\.mlp\.fc1", r"encoder.layers.encoder_layer_\1.mlp.0"),
        (r"blocks\.(\d+)\.mlp\.fc2", r"encoder.layers.encoder_layer_\1.mlp.3"),
        (r"norm\.", "encoder.ln."),
        (r"head\.", "heads.head."),
    ]
    return renamed(state, rules)


def renamed(state, rules):
    result = {}
    for name, array in state.items():
        for pattern, replacement in rules:
            name, count = re.subn(f"^{pattern}", replacement, name)
            if count:
                break
        result[name] = array
    return result


def huggingface_names(state, root="vit"):
    e = f"{root}.embeddings"
    layer = f"{root}.encoder.layer"
    rules = [
        (r"cls_token", f"{e}.cls_token"),
        (r"dist_token", f"{e}.distillation_token"),
        (r"pos_embed", f"{e}.position_embeddings"),
        (r"patch_embed\.proj", f"{e}.patch_embeddings.projection"),
        (r"blocks\.(\d+)\.norm1", rf"{layer}.\1.layernorm_before"),
        (r"blocks\.(\d+)\.norm2", rf"{layer}.\1.layernorm_after"),
        (r"blocks\.(\d+)\.attn\.proj", rf"{layer}.\1.attention.output.dense"),
        (r"blocks\.(\d+)\.mlp\.fc1", rf"{layer}.\1.intermediate.dense"),
        (r"blocks\.(\d+)\.mlp\.fc2", rf"{layer}.\1.output.dense"),
        (r"norm\.", f"{root}.layernorm."),
        (r"head_dist\.", "distillation_classifier."),
        (r"head\.", "classifier." if root == "vit" else "cls_classifier."),
    ]
    result = {}
    for name, array in renamed(state, rules).items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(.*)", name):
            for part, third in zip(("query", "key", "value"), np.split(array, 3)):
                result[f"{layer}.{match[1]}.attention.attention.{part}.{match[2]}"] = third
        else:
            result[name] = array
    return {**result, f"{root}.pooler.dense.weight": np.ones((2, 2), np.float32)}


def google_names(state, heads, prefix="", big_vision=False):
    mha, mlp, ln2 = (0, 0, 1) if big_vision else (1, 3, 2)
    D = state["cls_token"].shape[-1]
    result = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
        ("" if big_vision else "Transformer/posembed_input/") + "pos_embedding": state["pos_embed"],
    }
    for i in range(2):
        block, ours = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        for norm, number in (("norm1", 0), ("norm2", ln2)):
            result[f"{block}/LayerNorm_{number}/scale"] = state[f"{ours}.{norm}.weight"]
            result[f"{block}/LayerNorm_{number}/bias"] = state[f"{ours}.{norm}.bias"]
        for dense, fc in ((0, "fc1"), (1, "fc2")):
            result[f"{block}/MlpBlock_{mlp}/Dense_{dense}/kernel"] = state[f"{ours}.mlp.{fc}.weight"].T
            result[f"{block}/MlpBlock_{mlp}/Dense_{dense}/bias"] = state[f"{ours}.mlp.{fc}.bias"]
        attention = f"{block}/MultiHeadDotProductAttention_{mha}"
        for j, part in enumerate(("query", "key", "value")):
            weight, bias = (np.split(state[f"{ours}.attn.qkv.{kind}"], 3)[j] for kind in ("weight", "bias"))
            result[f"{attention}/{part}/kernel"] = weight.T.reshape(D, heads, -1)
            result[f"{attention}/{part}/bias"] = bias.reshape(heads, -1)
        result[f"{attention}/out/kernel"] = state[f"{ours}.attn.proj.weight"].T.reshape(heads, -1, D)
        result[f"{attention}/out/bias"] = state[f"{ours}.attn.proj.bias"]
    return {prefix + name: array for name, array in result.items()}


STYLES = {
    "timm": (lambda state: state, "timm"),
    "module": (lambda state: {f"module.{name}": array for name, array in state.items()}, "timm"),
    "torchvision": (torchvision_names, "torchvision"),
    "huggingface": (huggingface_names, "huggingface"),
    "google": (partial(google_names, heads=2), "google"),
    "google-target": (partial(google_names, heads=2, prefix="opt/target/"), "google"),
    "big-vision": (partial(google_names, heads=2, prefix="params/", big_vision=True), "google"),
}
