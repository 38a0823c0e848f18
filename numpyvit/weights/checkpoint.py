"""Weight files in and out. What is written is safetensors under timm's names, with notes and a checksum."""

import hashlib
import json
import os
import struct
from collections.abc import Mapping

import numpy as np

from ..core import Layer
from ..errors import CheckpointError
from ..files.atomic import to_json, write_atomically
from .containers import budget_for, naming, read_container
from .names import to_timm
from .reading import parse_json

_STATE_TIMES = 64  # a state's bound of memory over its size: a long run's records outgrow a small model's weights


def save_checkpoint(path: str | os.PathLike, model: Layer, **notes) -> None:
    """Write the model's weights, and in the metadata what is needed to build it again.

    notes: JSON-able values to keep beside, such as classes, mean and std.
    """
    save_tensors(path, model.state_dict(), {**recipe_of(model), **notes})


def recipe_of(model: Layer) -> dict:
    """The note by which a file says how its model is made again: {"recipe": its build_config}, or {} without one."""
    return {"recipe": dict(model.build_config)} if model.build_config else {}


def load_checkpoint(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """{timm's name: array} of a weight file of any common origin (see read_checkpoint).

    Errors: CheckpointError where it is missing, damaged, of another format, or would have to execute something.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict, str]:
    """-> ({timm's name: array}, notes, origin).

    notes: what a file that numpyvit wrote says of itself: recipe, classes, mean, std, accuracy; {} in files of others.
    Containers: safetensors, .npz, PyTorch's zip (.pth, .pt, .bin), ONNX of numpyvit and PyTorch. Names: timm and DeiT,
    torchvision, Hugging Face, Google's ViT and big_vision; recognized by themselves. origin is "timm", "deit",
    "torchvision", "huggingface" or "google", and decides how a position embedding is resized; "swin" for a Swin
    Transformer and "detr" for a DETR of any of them.
    """
    budget = budget_for(path)
    tensors, notes, metadata = _load(path, budget)
    with naming(path):
        arrays, origin = to_timm(tensors, budget)
    if origin == "timm" and metadata.get("wrapped") == "model":
        origin = "deit"  # DeiT's own files carry timm's names, in a dict with "model"
    return arrays, notes, origin


def save_tensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], notes: Mapping) -> None:
    """Write arrays and JSON-able notes as one safetensors file, whole or not at all, with a checksum over both.

    Equal arrays and notes make equal files, byte for byte.
    """
    from safetensors.numpy import save

    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    notes = to_json(notes)
    metadata = {"format": "np", "numpyvit": notes, "sha256": _digest(tensors, notes)}
    write_atomically(path, _with_sorted_header(save(tensors, metadata)))


def _with_sorted_header(data):
    """A safetensors file with its header in alphabetical order; the library has the metadata in a random one."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the numbers begin at a multiple of eight
    return b"".join([struct.pack("<Q", len(header)), header, memoryview(data)[8 + length :]])


def load_tensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """-> ({name: array} under the file's own names, notes) of a file that save_tensors wrote; verifies its checksum."""
    return _load(path, budget_for(path, _STATE_TIMES))[:2]


def _load(path, budget):
    tensors, metadata, _ = read_container(path, budget)
    with naming(path):
        text = metadata.get("numpyvit", "{}")
        if "sha256" in metadata and metadata["sha256"] != _digest(tensors, text):
            raise CheckpointError("is damaged (its checksum differs); save or fetch it again")
        notes = parse_json(text.encode(), budget)
        if not isinstance(notes, dict):
            raise CheckpointError(f"is damaged (its notes are a {type(notes).__name__}); save or fetch it again")
        return tensors, notes, metadata


def _digest(tensors, notes):
    digest = hashlib.sha256(notes.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
