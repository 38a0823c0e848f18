"""Weight files in and out. What is written is safetensors under timm's names, with notes and a checksum."""

import hashlib
import json

import numpy as np

from .containers import read_container
from .errors import CheckpointError
from .files import to_json, write_atomically
from .key_names import to_timm


def save_checkpoint(path, model, **notes):
    """Write the model's weights, and in the metadata what is needed to build it again.

    notes: JSON-able values to keep beside, such as classes, mean and std.
    """
    recipe = getattr(model, "_recipe", None)
    save_tensors(path, model.state_dict(), {**({"recipe": recipe} if recipe else {}), **notes})


def load_checkpoint(path):
    """{timm's name: array} of a weight file of any common origin (see read_checkpoint).

    Errors: CheckpointError where it is missing, damaged, of another format, or would have to execute something.
    """
    return read_checkpoint(path)[0]


def read_notes(path):
    """What a numpyvit checkpoint says of itself: recipe, classes, mean, std, accuracy; {} in files of others."""
    return read_checkpoint(path)[1]


def read_checkpoint(path):
    """-> ({timm's name: array}, notes, origin).

    Containers: safetensors, .npz, PyTorch's zip (.pth, .pt, .bin). Names: timm and DeiT, torchvision, Hugging Face,
    Google's ViT and big_vision; recognised by themselves. origin is "timm", "deit", "torchvision", "huggingface" or
    "google", and decides how a position embedding is resized; "swin" for a Swin Transformer of any of them.
    """
    tensors, notes, metadata = _load(path)
    arrays, origin = to_timm(tensors)
    if origin == "timm" and metadata.get("wrapped") == "model":
        origin = "deit"  # DeiT's own files carry timm's names, in a dict with "model"
    return arrays, notes, origin


def save_tensors(path, tensors, notes):
    """Write arrays and JSON-able notes as one safetensors file, whole or not at all, with a checksum over both."""
    from safetensors.numpy import save

    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    notes = to_json(notes)
    metadata = {"format": "np", "numpyvit": notes, "sha256": _digest(tensors, notes)}
    write_atomically(path, save(tensors, metadata))


def load_tensors(path):
    """-> ({name: array} under the file's own names, notes). The checksum is verified where the file has one."""
    return _load(path)[:2]


def _load(path):
    tensors, metadata, _ = read_container(path)
    notes = metadata.get("numpyvit", "{}")
    if "sha256" in metadata and metadata["sha256"] != _digest(tensors, notes):
        raise CheckpointError(f"{path}: is damaged (its checksum differs); save or fetch it again")
    try:
        return tensors, json.loads(notes), metadata
    except ValueError:
        raise CheckpointError(f"{path}: is damaged (its metadata is no JSON); save or fetch it again") from None


def _digest(tensors, notes):
    digest = hashlib.sha256(notes.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
