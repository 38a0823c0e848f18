"""Writes tests/golden/timm.onnx and huggingface.onnx with PyTorch's exporter; runs where torch, timm, transformers and
onnx are:

    PYTHONPATH=.:tests python tests/reference/make_onnx.py
"""

import pathlib

import timm
import torch
from foreign_weights import TINY, huggingface_names, tiny
from transformers import ViTConfig, ViTForImageClassification

from numpyvit.testing import randomize

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def export(model, state, name):
    """A model with these weights, exported for any batch."""
    print(model.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()}))
    options = dict(input_names=["images"], dynamic_axes={"images": {0: "batch"}}, dynamo=False)
    torch.onnx.export(model.eval(), (torch.zeros(1, 3, 8, 8),), GOLDEN / f"{name}.onnx", **options)


def in_memory(name):
    """The names that transformers 5 has in memory."""
    for old, new in (
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ):
        name = name.replace(old, new)
    return name


class Logits(torch.nn.Module):
    """A model of Hugging Face that returns an array."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).logits


state = randomize(tiny(), seed=4).state_dict()
state["blocks.1.norm1.weight"][...] = state["blocks.0.norm1.weight"]  # equal arrays are stored once
export(timm.models.VisionTransformer(**TINY), state, "timm")
sizes = dict(image_size=8, patch_size=4, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
config = ViTConfig(**sizes, intermediate_size=16, num_labels=5)
named = {f"model.{in_memory(name)}": array for name, array in huggingface_names(state).items() if "pooler" not in name}
export(Logits(ViTForImageClassification(config)), named, "huggingface")
